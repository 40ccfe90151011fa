"""Merge an adapter into its base model, and prove that the result on disk answers the same. Runs in the child."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from worker.artifacts.adapter_tensors import NotStreamable
from worker.artifacts.folders import folder_bytes, publish_artifact
from worker.artifacts.merge_inputs import check_adapter, check_base
from worker.artifacts.merge_plan import Plan, make_plan
from worker.artifacts.proving import prove_apart
from worker.artifacts.saving import (
    carry_over,
    mend_generation_config,
    save_configuration,
    save_tokenizer,
    write_card,
)
from worker.artifacts.streaming import Trained, stream
from worker.artifacts.verify import describe_certificate, dtype_name
from worker.base_models.checks import check_weights
from worker.base_models.stages import Stages
from worker.context import JobContext
from worker.inference.prompts import stop_token_ids
from worker.patience import wait_for_memory
from worker.training.model import set_threads
from worker.training.preload import release
from worker.training.quantization import Quantization, find_quantization
from worker.training.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_FILES_BYTES = 32 * 1024**2  # tokenizer and configuration beside the weights
_PROCESS_BYTES = 10**9  # libraries, an adapter, and a layer that is being merged
_STAGES = 3


def run_merge(context: JobContext) -> dict[str, Any]:
    """Write the job's `merged` folder; returns {bytes, dtype, certificate}.

    Payload: base_model {name, path}, adapter_path (of an adapter or a checkpoint), adapter_job_id, dtype (bf16, fp16 or
    fp32), onto (trained: the base as the adapter was trained on it, of QLoRA its dequantised weights; or original),
    and where they are known model_files (the base's, when it was trained on) and held_out {path, sha256, spec}.
    Raises: MergeError, ModelLoadError, DiskFull, TooLarge, JobCancelled.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]
    stages = Stages(context, _STAGES)
    stages.enter("load")
    set_threads()
    release()
    merge = Merge.of(context.payload)
    tokenizer = load_tokenizer(merge.adapter)
    plan, reason = merge.plan()
    meta = {**merge.describe(), "adapter_job_id": context.payload["adapter_job_id"]}
    if plan is None:
        wait_for_memory(context, merge.memory_bytes(), f"Merged through peft, since {reason}: that")
    answer = str(Path(context.assignment.spool).with_name("proof.json"))
    target, needed = context.folder / "merged", (plan.bytes if plan else merge.estimate()) + _FILES_BYTES
    with publish_artifact(target, meta, needed) as folder:
        stages.enter("merge")
        how = merge.write(plan, reason, tokenizer, folder, stages)
        write_card(folder, merge.base, **merge.for_card(context.payload, how))
        stages.enter("verify")
        proof = prove_apart({**merge.task(folder, context.payload), "answer": answer}, stages.check_stop)
        meta["files"] = proof.pop("files")
        certificate = meta["certificate"] = {**proof, "base": merge.onto, "how": how}
        logger.info("%s", describe_certificate(certificate))
        if certificate["warning"]:
            logger.warning("%s", certificate["warning"])
        stages.check_stop()
    stages.finish()
    context.spool.artifact("merged", "merged", certificate=certificate)
    return {"bytes": folder_bytes(target), "dtype": context.payload["dtype"], "certificate": certificate}


@dataclass(frozen=True, slots=True)
class Merge:
    """One merge: of which adapter, into which base, and how that was held when the adapter was trained."""

    base_name: str
    base: Path
    adapter: Path
    dtype: torch.dtype
    quantization: Quantization | None
    trained_dtype: torch.dtype
    on_files: bool  # of a quantised base: not what was trained on, but the weights that it was quantised from

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Merge:
        """Raises: MergeError where base or adapter are not what they were."""
        base, adapter = payload["base_model"], Path(payload["adapter_path"])
        check_base(base, payload.get("model_files"))
        meta = check_adapter(adapter, base)
        trained: torch.dtype = getattr(torch, meta["base_model"].get("dtype") or "float32")
        return cls(
            base["name"], Path(base["path"]), adapter, _DTYPES[payload["dtype"]],
            find_quantization(meta.get("spec") or {}), trained, payload.get("onto") == "original",
        )  # fmt: skip

    @property
    def onto(self) -> str:
        """The base, as the certificate says it."""
        if self.quantization is None:
            return "as registered"
        return "original" if self.on_files else f"dequantised {self.quantization.name}"

    @property
    def _few_bits(self) -> Quantization | None:
        return None if self.on_files else self.quantization

    def plan(self) -> tuple[Plan | None, str]:
        """How it is streamed; or none, and why not. Raises: MergeError, ModelLoadError."""
        try:
            return make_plan(self.base, self.adapter, self.dtype, quantised=self._few_bits is not None), ""
        except NotStreamable as reason:
            logger.info("merged through peft, in memory: %s", reason)
            return None, str(reason)

    def estimate(self) -> int:
        """Bytes of the merged weights, where there is no plan that says."""
        return self._count_values() * self.dtype.itemsize

    def memory_bytes(self) -> int:
        """Of the process that merges through peft, about: the base in fp32, and beside it in few bits."""
        return self._count_values() * (5 if self._few_bits is not None else 4) + _PROCESS_BYTES

    def _count_values(self) -> int:
        weights = check_weights(self.base)
        return weights.bytes // (4 if weights.dtype == "F32" else 2)

    def write(self, plan: Plan | None, reason: str, tokenizer: Any, folder: Path, stages: Stages) -> str:
        """Everything but the card; returns how it was done. Raises: MergeError, ModelLoadError."""
        if plan is None:
            from worker.artifacts.through_peft import merge_through_peft, write_rounded  # takes a second

            model = merge_through_peft(self.base, self.adapter, self._few_bits, self.trained_dtype)
            stages.check_stop()
            write_rounded(model, tokenizer, folder, self.dtype)
        else:
            held = Trained(self._few_bits, self.trained_dtype) if self._few_bits else None
            stream(plan, folder, held, stages.check_stop)
            model = plan.skeleton.model
            mend_generation_config(model.generation_config, stop_token_ids(model, tokenizer))
            save_configuration(model, folder, self.dtype, words=plan.vocabulary, untied=plan.untied)
            save_tokenizer(tokenizer, folder)
        carry_over(self.base, folder)
        return "streamed" if plan else f"through peft, since {reason}"

    def describe(self) -> dict[str, Any]:
        """For `meta.json`."""
        return {"kind": "merged", "base_model": self.base_name}

    def for_card(self, payload: Mapping[str, Any], how: str) -> dict[str, str]:
        """What the model card says."""
        step = f", as it was after step {payload['checkpoint']}" if payload.get("checkpoint") else ""
        original = "its original weights, though it was trained on quantised ones"
        onto = {"as registered": "the base model", "original": original}
        return {
            "base": self.base_name,
            "step": step,
            "onto": onto.get(self.onto, f"its {self.onto} weights, on which it was trained,"),
            "how": "tensor by tensor" if how == "streamed" else "by peft",
            "dtype": dtype_name(self.dtype),
        }

    def task(self, folder: Path, payload: Mapping[str, Any]) -> dict[str, Any]:
        """For the process that proves it."""
        return {
            "folder": str(folder),
            "base": str(self.base),
            "adapter": str(self.adapter),
            "dtype": dtype_name(self.dtype),
            "quantization": asdict(self.quantization) if self.quantization else None,
            "trained_dtype": dtype_name(self.trained_dtype),
            "onto_files": self.on_files,
            "held_out": payload.get("held_out"),
            "code": payload["base_model"].get("code"),
        }
