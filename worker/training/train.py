"""A training job, from its payload to a saved adapter. Runs in the child; importing this imports torch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from app.core.errors import JobCancelled
from app.core.jobs.spec import parse_spec
from worker.artifacts.steps import collect_halves
from worker.capabilities import require_capabilities
from worker.context import JobContext
from worker.training.adapters import add_lora
from worker.training.callback import check_cancelled
from worker.training.data import ensure_chat_template
from worker.training.device_limit import device_limit
from worker.training.dropout import quicken_dropout
from worker.training.full import load_whole_model
from worker.training.inputs import check_inputs
from worker.training.model import choose_hardware, set_threads
from worker.training.preload import base_model_of, tokenizer_of
from worker.training.proofs import keeping_proofs, what_decides
from worker.training.quantization import find_quantization
from worker.training.receipt import write_receipt
from worker.training.rerun import check_rerun
from worker.training.rows import load_rows
from worker.training.run import Run
from worker.training.start import take_start
from worker.training.trainer import choose_optim

logger = logging.getLogger(__name__)


@device_limit()
def run_training(context: JobContext) -> dict[str, Any]:
    """Train the payload's spec and save what was trained below the job's folder; returns the job's summary.

    Payload: spec, init_adapter ({job_id, path, sha256} of what it goes on from, or none), base_model {name, path,
    architecture}, proofs (a folder to keep them in, or none), dataset {name,
    path, tokens (a folder to keep them in), format, sha256 of the file at path}, inputs (what it was queued on, as
    `app.core.jobs.inputs` keeps it, or none), start_from (the step of the state to go on from, 0 for anew, or none),
    sampled ({steps, base}: of which steps, and whether of the base, samples were told; or none), extended_at (the steps
    at which the run had ended before it was made longer, or none).
    Raises: InvalidInput, DatasetFormatError, InputChanged, ModelLoadError, DiskFull, JobError; JobCancelled where the
    user stops it, after saving it if that was asked.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]
    spec, base = parse_spec(context.payload["spec"]), context.payload["base_model"]
    context.spool.phase("load")
    collect_halves(context.folder)
    require_capabilities(spec)
    check_inputs(context)
    hardware, quantization = choose_hardware(spec.bf16), find_quantization(spec.model_dump())
    logger.info("training on %s in %s with %d CPU threads", hardware.device, hardware.dtype_name, set_threads())
    tokenizer = tokenizer_of(base["path"])
    if spec.task != "text" and ensure_chat_template(tokenizer):
        logger.warning("%s has no chat template: ChatML is used, and saved with what is trained", base["name"])
    check_cancelled(context)
    rerun = check_rerun(context, spec, hardware)
    if spec.method == "full":
        model = load_whole_model(base["path"], hardware)
    else:
        named = (base.get("hub_id") or base["name"], base.get("revision") if base.get("hub_id") else None)
        model = add_lora(base_model_of(base["path"], hardware, quantization), spec, *named)
        if context.payload.get("init_adapter") is not None:
            take_start(model, context.payload["init_adapter"])
    if hardware.device.type == "cpu":
        quicken_dropout(model)
    context.spool.phase("tokenize")
    rows = load_rows(context, tokenizer, spec, model.get_input_embeddings().weight.shape[0])
    with keeping_proofs(context.payload.get("proofs"), what_decides(Path(base["path"]), spec, hardware)):
        summary = Run(context, spec, hardware, model, tokenizer, rows).train()
    summary |= {"optim": choose_optim(spec, hardware), "quantization": quantization.name if quantization else None}
    extended_at = context.payload.get("extended_at")
    summary |= rerun | ({"extended_at": extended_at} if extended_at else {})
    write_receipt(context, spec, hardware, summary)
    if summary["stopped_by_user"]:
        kind = "model" if spec.method == "full" else "adapter"
        logger.info("stopped as asked after %d steps; the %s is saved", summary["steps"], kind)
        raise JobCancelled(f"Stopped as asked; the {kind} is saved.", summary=summary)
    return summary
