"""An export job: another program's file of a model, whole and verified or not there. Runs in the child."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from app.core.exports.gguf_rules import find_family, gguf_faults, read_object
from worker.artifacts.folders import folder_bytes, folder_fault, publish_artifact
from worker.base_models.stages import Stages
from worker.context import JobContext
from worker.exports.gguf_check import check_answers, check_tensors, check_tokenizer
from worker.exports.gguf_tensors import ExportError, Weights
from worker.exports.gguf_vocab import read_vocabulary
from worker.exports.gguf_write import write_gguf
from worker.exports.modelfile import write_modelfile
from worker.training.model import set_threads
from worker.training.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)

MODELFILE = "Modelfile"
_VOCABULARY_BYTES = 64 * 1024**2


def run_export(context: JobContext) -> dict[str, Any]:
    """Write the job's `gguf` folder: the file, and a Modelfile for Ollama; returns {bytes, file, certificate}.

    Payload: quantization (f16 or q8_0), name, model_path (a merged or whole model's folder), source_job_id. All on the
    CPU, in pieces of 64 MiB but for what is compared at the end. Raises: ExportError, DiskFull, JobCancelled.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]
    set_threads()
    source, quantization = Path(context.payload["model_path"]), context.payload["quantization"]
    config, family = _examine(source)
    file = f"{context.payload['file_stem']}-{quantization}.gguf"
    meta = {"kind": "gguf", "quantization": quantization, "source_job_id": context.payload["source_job_id"]}
    target = context.folder / "gguf"
    with Weights(source, config, family, quantization) as weights:
        stages = Stages(context, 2 * len(weights.targets) + 3)
        stages.enter("convert")
        needed = sum(each.stored_bytes for each in weights.targets) + _VOCABULARY_BYTES
        with publish_artifact(target, meta, needed) as folder:
            named = {"name": context.payload["name"], "quantization": quantization}
            write_gguf(weights, source, config, family, folder / file, on_tensor=_counting(stages, "convert"), **named)
            worst = check_tensors(folder / file, weights, _counting(stages, "verify"))
            stages.enter("verify")
            check_tokenizer(folder / file, source, config["vocab_size"])
            stages.enter("verify")
            answers = check_answers(folder / file, source, config, quantization)
            meta["certificate"] = {**answers, "largest_weight_error": worst, "dtype": quantization, "passed": True}
            adds_bos = read_vocabulary(source, config["vocab_size"]).adds_bos
            text = write_modelfile(source, file, load_tokenizer(source), adds_bos=adds_bos)
            (folder / MODELFILE).write_text(text, encoding="utf-8")
            stages.check_stop()
    stages.finish()
    _tell(meta["certificate"])
    context.spool.artifact("gguf", "gguf", certificate=meta["certificate"])
    return {"bytes": folder_bytes(target), "file": file, "certificate": meta["certificate"]}


def _examine(source: Path) -> tuple[dict[str, Any], Any]:
    """Its config and family. Raises: ExportError where its files are not as they were saved, or cannot be exported."""
    if fault := folder_fault(source):
        raise ExportError(f"The model is not as it was saved: {fault}.", advice="Merge again, then export again.")
    faults = list(gguf_faults(source))
    if faults:
        raise ExportError(" ".join(faults), advice="Use the safetensors of the merged model.")
    config = read_object(source / "config.json")
    return config, find_family(config)


def _counting(stages: Stages, phase: str) -> Any:
    def tell(_done: int) -> None:
        stages.enter(phase)

    return tell


def _tell(certificate: dict[str, Any]) -> None:
    if certificate["warning"]:
        logger.warning("%s", certificate["warning"])
        return
    logger.info(
        "verified: read back by gguf and by transformers; its logits are %.3f %% of their spread off, greedy tokens %s",
        100 * certificate["relative_difference"],
        "equal" if certificate["greedy_tokens_equal"] else "not all equal",
    )
