"""A training job, from its payload to a saved adapter. Runs in the child; importing this imports torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from app.core.errors import JobCancelled
from app.core.jobs.spec import TrainingSpec, parse_spec
from worker.capabilities import require_capabilities
from worker.context import JobContext, StopRequest
from worker.training.adapters import add_lora, base_stays, initial_lora
from worker.training.callback import SpoolCallback, check_cancelled
from worker.training.checkpoints import Saver
from worker.training.data import ensure_chat_template
from worker.training.device_limit import device_limit
from worker.training.dropout import quicken_dropout
from worker.training.duties import Duties
from worker.training.full import ModelOutput, load_whole_model
from worker.training.model import Hardware, choose_hardware, load_base_model, set_threads
from worker.training.outputs import AdapterOutput
from worker.training.packing import Packs, arrange_rows
from worker.training.pairs import Pairs
from worker.training.preference import PreferenceTrainer
from worker.training.probing import Probe
from worker.training.proofs import keeping_proofs, what_decides
from worker.training.quantization import find_quantization
from worker.training.receipt import write_receipt
from worker.training.rerun import check_rerun
from worker.training.resume import SavedState, StateStore, describe_origin
from worker.training.rows import EncodedRows, Examples, load_rows
from worker.training.samples import Prompt, choose_prompts, write_samples
from worker.training.summary import summarise
from worker.training.tokenizer import load_tokenizer
from worker.training.trainer import AnswerTrainer, Values, choose_optim, make_arguments

logger = logging.getLogger(__name__)


@device_limit()
def run_training(context: JobContext) -> dict[str, Any]:
    """Train the payload's spec and save what was trained below the job's folder; returns the job's summary.

    Payload: spec, base_model {name, path, architecture}, proofs (a folder to keep them in, or none), dataset {name,
    path, tokens (a folder to keep them in), format, sha256 of the file at path}.
    Raises: InvalidInput, DatasetFormatError, ModelLoadError, DiskFull, JobError; JobCancelled where the user stops it,
    after saving it if that was asked.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]
    spec, base = parse_spec(context.payload["spec"]), context.payload["base_model"]
    context.spool.phase("load")
    require_capabilities(spec)
    hardware, quantization = choose_hardware(spec.bf16), find_quantization(spec.model_dump())
    logger.info("training on %s in %s with %d CPU threads", hardware.device, hardware.dtype_name, set_threads())
    tokenizer = load_tokenizer(base["path"])
    if spec.task != "text" and ensure_chat_template(tokenizer):
        logger.warning("%s has no chat template: ChatML is used, and saved with what is trained", base["name"])
    check_cancelled(context)
    rerun = check_rerun(context, spec, hardware)
    if spec.method == "full":
        model = load_whole_model(base["path"], hardware)
    else:
        model = add_lora(load_base_model(base["path"], hardware, quantization), spec, base["name"])
    if hardware.device.type == "cpu":
        quicken_dropout(model)
    context.spool.phase("tokenize")
    rows = load_rows(context, tokenizer, spec)
    with keeping_proofs(context.payload.get("proofs"), what_decides(Path(base["path"]), spec, hardware)):
        summary = _train(context, spec, hardware, model, tokenizer, rows)
    summary |= {"optim": choose_optim(spec, hardware), "quantization": quantization.name if quantization else None}
    summary |= rerun
    write_receipt(context, spec, hardware, summary)
    if summary["stopped_by_user"]:
        kind = "model" if spec.method == "full" else "adapter"
        logger.info("stopped as asked after %d steps; the %s is saved", summary["steps"], kind)
        raise JobCancelled(f"Stopped as asked; the {kind} is saved.", summary=summary)
    return summary


def _train(
    context: JobContext, spec: TrainingSpec, hardware: Hardware, model: Any, tokenizer: Any, rows: EncodedRows
) -> dict[str, Any]:
    base = context.payload["base_model"]
    known = {k: base.get(k) for k in ("name", "architecture")} | {"dtype": hardware.dtype_name}
    full = spec.method == "full"
    output = ModelOutput(context, model, tokenizer, spec) if full else AdapterOutput(model, spec, base["name"])
    saver = Saver(context.spool, context.folder, tokenizer, spec, known, output)
    callback = SpoolCallback(context, spec)
    pad = tokenizer.pad_token_id or 0  # any id will do: padding is neither seen nor learned
    with hardware.autocast():  # as it trains, so that what is proven is what is used
        examples, collate = arrange_rows(model, rows.train, spec, pad)
    trainer = _make_trainer(spec, model, make_arguments(spec, hardware, context.folder), examples, collate, callback)
    origin = describe_origin(context.payload, trainer.row_lengths, initial_lora(model, spec))
    states = StateStore(context.folder, origin, hardware.device.type)
    probe = Probe(trainer)
    callback.duties = Duties(
        tokens_seen=lambda: trainer.tokens_seen,
        save_checkpoint=partial(_save, saver, states, trainer, callback),
        save_state=partial(_save_state, saver, states, trainer, callback),
        evaluate=partial(_evaluate, context, model, trainer, rows.evaluation) if rows.evaluation else None,
        take_metrics=trainer.take_metrics,
        probe=probe.take if spec.probe else None,
    )
    trainer.note_batch = context.in_hand.take
    if not isinstance(rows.train, Pairs):  # of a pair both sides count together
        context.in_hand.describe_rows(rows.train.lengths.tolist(), spec.max_length)
    begun = _go_on(context, trainer, callback, saver, states)
    prompts, still_base = _prompts(context, rows, tokenizer, spec), base_stays(spec)
    if not still_base and not begun:
        context.spool.phase("sample")
        write_samples(context, model, tokenizer, prompts, 0, ["base"])
    if isinstance(trainer, PreferenceTrainer) and not still_base:
        context.spool.phase("reference")
        batches = chain(*(_batches(context, each, trainer) for each in (rows.train, rows.evaluation)))
        trainer.keep_start(batches, len(rows.train) + len(rows.evaluation))
    trainer.train(resume_from_checkpoint=str(begun.folder) if begun else None)
    last_step = trainer.state.global_step
    step = states.take_best(model, callback.best, last_step)
    context.spool.phase("save")
    saved = saver.save_final(model, step, last_step)
    hurry = context.stop_request is StopRequest.SAVE
    if not hurry:
        context.spool.phase("sample")
        write_samples(context, model, tokenizer, prompts, step, ["base", "tuned"] if still_base else ["tuned"])
    stopped = hurry and last_step < trainer.state.max_steps and not callback.best.stopped
    attempts = {"resumed_from_step": begun.step if begun else None, "attempts": context.assignment.attempt}
    extra = {"steps": last_step, "saved_step": step, "stopped_by_user": stopped, **saved, **callback.best.summary()}
    extra |= attempts | probe.summary()
    if isinstance(examples, Packs):
        extra |= examples.summary()
    return summarise(callback, model, rows, hardware, extra)


def _go_on(
    context: JobContext, trainer: AnswerTrainer, callback: SpoolCallback, saver: Saver, states: StateStore
) -> SavedState | None:
    """Where an earlier attempt was interrupted: the state to go on from, taken up here and by the Trainer's `train`."""
    begun = states.find()
    step = begun.step if begun else 0
    saver.drop_later_checkpoints(step)
    states.drop_later(step)
    context.spool.start(step)
    if begun:
        callback.resume(begun.progress)
        trainer.tokens_seen = callback.totals.tokens
    return begun


def _save(
    saver: Saver, states: StateStore, trainer: AnswerTrainer, callback: SpoolCallback, step: int, best_step: int | None
) -> None:
    """A checkpoint, and only then the state: a run that goes on from there lacks none of the checkpoints before."""
    saver.save_checkpoint(trainer.model, step, best_step)
    _save_state(saver, states, trainer, callback, best_step)


def _save_state(
    saver: Saver, states: StateStore, trainer: AnswerTrainer, callback: SpoolCallback, best_step: int | None
) -> None:
    saver.spool.sync()  # what was reported up to here must outlive a power cut as the state does
    states.save(trainer, callback.progress, best_step)


def _make_trainer(spec: TrainingSpec, *arguments: Any) -> AnswerTrainer:
    return PreferenceTrainer(spec.beta, *arguments) if spec.task == "dpo" else AnswerTrainer(*arguments)


def _evaluate(context: JobContext, model: Any, trainer: AnswerTrainer, rows: Examples, base: bool) -> Values:
    """What the eval rows come to, of the base model (the adapter switched off) or as trained so far."""
    with model.disable_adapter() if base else nullcontext():
        return trainer.measure(_batches(context, rows, trainer))


def _batches(context: JobContext, rows: Examples, trainer: AnswerTrainer) -> Iterator[dict[str, Any]]:
    """All rows, those of like length together."""
    ordered, batch_size = rows.by_length(), trainer.args.per_device_train_batch_size
    for start in range(0, len(ordered), batch_size):
        check_cancelled(context)
        batch = trainer.collate(ordered[start : start + batch_size])
        context.in_hand.take(trainer.state.global_step, batch)
        yield batch


def _prompts(context: JobContext, rows: EncodedRows, tokenizer: Any, spec: TrainingSpec) -> list[Prompt]:
    return choose_prompts(Path(context.payload["dataset"]["path"]), rows.held_out, tokenizer, spec.task)
