"""Merge an adapter into its base model, and prove that the result on disk answers the same. Runs in the child."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from app.core.errors import MergeError
from worker.artifacts.answers import Reference, compare, measure_reference
from worker.artifacts.folders import META, folder_bytes, publish_artifact
from worker.artifacts.verify import (
    certify,
    describe_certificate,
    measure_again,
    require_same,
)
from worker.base_models.publish import hash_file
from worker.base_models.stages import Stages
from worker.context import JobContext
from worker.inference.generate import stop_token_ids
from worker.training.adapters import load_adapter
from worker.training.model import Hardware, load_base_model, set_threads
from worker.training.preload import release
from worker.training.quantization import Quantization, copy_dequantized, find_quantization
from worker.training.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_FILES_BYTES = 32 * 1024**2  # tokenizer and configuration beside the weights
_STAGES = 4
_CPU = Hardware(torch.device("cpu"), torch.float32)


def run_merge(context: JobContext) -> dict[str, Any]:
    """Write the job's `merged` folder; returns {bytes, dtype, certificate}.

    Payload: base_model {name, path}, adapter_path, adapter_job_id, dtype (bf16, fp16 or fp32). Base and adapter are
    added in fp32 on the CPU and rounded once. The base is the one that was trained on: of a QLoRA adapter its quantised
    weights, dequantised. Raises: MergeError, ModelLoadError, DiskFull, JobCancelled.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]
    base, adapter = context.payload["base_model"], Path(context.payload["adapter_path"])
    dtype, stages = _DTYPES[context.payload["dtype"]], Stages(context, _STAGES)
    stages.enter("load")
    set_threads()
    release()
    trained = TrainedBase.of(check_adapter(adapter, base["name"]))
    tokenizer = load_tokenizer(adapter)
    model, effect = load_tuned(base["path"], adapter, tokenizer, trained)
    meta = {"kind": "merged", "base_model": base["name"], "adapter_job_id": context.payload["adapter_job_id"]}
    target, needed = context.folder / "merged", _weights_bytes(model, dtype) + _FILES_BYTES
    with publish_artifact(target, meta, needed) as folder:
        stages.enter("merge")
        model, reference, rounded = merge(model, tokenizer, dtype)
        stages.enter("save")
        save_model(model, tokenizer, folder, dtype)
        del model
        stages.enter("verify")
        meta["certificate"] = {**certify(reference, rounded, folder, dtype, effect), "base": trained.name}
        logger.info("%s", describe_certificate(meta["certificate"]))
        if meta["certificate"]["warning"]:
            logger.warning("%s", meta["certificate"]["warning"])
        stages.check_stop()
    stages.finish()
    context.spool.artifact("merged", "merged", certificate=meta["certificate"])
    return {"bytes": folder_bytes(target), "dtype": context.payload["dtype"], "certificate": meta["certificate"]}


@dataclass(frozen=True, slots=True)
class TrainedBase:
    """How the base model was held while the adapter learned to add to it."""

    quantization: Quantization | None
    dtype: torch.dtype  # of what was not quantised, and of what was while it was computed with

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> TrainedBase:
        """From the `meta.json` of an adapter."""
        dtype: torch.dtype = getattr(torch, meta["base_model"].get("dtype", "float32"))
        return cls(find_quantization(meta["spec"]), dtype)

    @property
    def name(self) -> str:
        """As the certificate says it."""
        return f"dequantised {self.quantization.name}" if self.quantization else "as registered"


def load_tuned(base: str, adapter: Path, tokenizer: Any, trained: TrainedBase) -> tuple[Any, float]:
    """Base and adapter in fp32, and the relative logit difference that the adapter makes. Raises: ModelLoadError."""
    model: Any = load_base_model(base, _CPU).eval()
    if trained.quantization is not None:
        copy_dequantized(load_base_model(base, Hardware(_CPU.device, trained.dtype), trained.quantization), model)
    untuned = measure_reference(model, tokenizer)
    model = load_adapter(model, adapter).eval()
    return model, compare(untuned, measure_again(untuned, model)).relative_difference


def check_adapter(adapter: Path, base_model_name: str) -> dict[str, Any]:
    """Every file as it was saved, and made for this base model; returns its `meta.json`. Raises: MergeError."""
    try:
        meta: dict[str, Any] = json.loads((adapter / META).read_text(encoding="utf-8"))
        files = meta["files"]
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as error:
        raise MergeError(
            f"{adapter} is not a complete adapter: {error}", advice="Run the training job again."
        ) from error
    for file in files:
        path = adapter / file["path"]
        if not path.is_file() or hash_file(path) != file["sha256"]:
            message = f"{path} is not as it was saved: its hash has changed."
            raise MergeError(message, advice="Use an earlier checkpoint, or run the training job again.")
    if config["base_model_name_or_path"] != base_model_name:
        raise MergeError(f"The adapter was trained on {config['base_model_name_or_path']}, not on {base_model_name}.")
    return meta


def merge(model: Any, tokenizer: Any, dtype: torch.dtype) -> tuple[Any, Reference, Reference]:
    """Add the adapter to the base weights in fp32, then round once to `dtype`; the parameters stay fp32 tensors.

    Returns the plain model, what base and adapter answer, and what the rounded sum answers.
    Raises: MergeError where the sum answers otherwise than base and adapter, or does not fit into `dtype`.
    """
    reference = measure_reference(model, tokenizer)
    merged = model.merge_and_unload()
    require_same(reference, measure_again(reference, merged), "The merged model in memory")
    for name, parameter in merged.named_parameters():
        parameter.data = parameter.data.to(dtype).float()
        if not torch.isfinite(parameter.data).all():
            raise MergeError(f"{name} holds values that do not fit into {dtype}.", advice="Merge in bf16 instead.")
    return merged, reference, measure_again(reference, merged)


def save_model(model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write the rounded weights in `dtype`, with tokenizer, chat template and generation config."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)  # in place, so that tied weights stay tied
    model.config.dtype = dtype
    mend_generation_config(model.generation_config, stop_token_ids(model, tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def mend_generation_config(config: Any, stop_ids: list[int]) -> None:
    """Make it end where the tuned model ends its turn, and valid: transformers refuses to save it otherwise.

    Settings of sampling without `do_sample` are the usual fault; whoever set them wanted to sample.
    """
    config.eos_token_id = stop_ids[0] if len(stop_ids) == 1 else stop_ids
    config._from_model_config = False
    try:
        config.validate(strict=True)
    except ValueError as error:
        logger.info("generation_config: do_sample switched on, since %s", error)
        config.do_sample = True


def _weights_bytes(model: Any, dtype: torch.dtype) -> int:
    """Bytes of the base model's weights in `dtype`; tied ones count once."""
    return sum(int(p.numel()) for p in model.parameters()) * dtype.itemsize
