"""The certificate of a merged model on disk: it is base and adapter. Made in a process that has not merged it.

The folder is loaded first, as any program would load it, then base and adapter beside it. Three things are compared:
each weight with peft's own sum of it (so a lost adapter shows however little it does), the logits on a few prompts and
on rows that were not learned from, and what lies around the weights. Both sides compute in fp32 from the weights on
disk, so that only the rounding of the merged ones shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from app.core.artifacts.manifest import list_file
from app.core.errors import MergeError
from worker.artifacts.answers import PROMPTS, encode_prompt
from worker.artifacts.arithmetic import Source, compute_in_fp32
from worker.artifacts.divergence import Divergence, MeanLoss
from worker.artifacts.held_out import read_held_out
from worker.artifacts.reference import Reference, load_reference
from worker.artifacts.tensors import DTYPES
from worker.artifacts.verify import ROUNDING, dtype_name, rounding_warning
from worker.artifacts.weights import compare_weights
from worker.base_models.checks import check_weights
from worker.base_models.publish import files_of
from worker.inference.prompts import stop_token_ids
from worker.own_code import from_folder
from worker.training.quantization import Quantization
from worker.training.tokenizer import load_tokenizer

_NEW_TOKENS = 8
_FLOPS = 1e12  # that a model's pass over the held-out rows may take, about: ten to thirty seconds of two cores
_TOKENS = (256, 4096)


def prove(task: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate. Raises: MergeError that says what differs.

    Task: folder, base, adapter, dtype (of the merged weights), quantization and trained_dtype (of the base that the
    adapter was trained on, or null), onto_files (whether it was merged onto the base's files all the same), held_out.
    """
    folder, adapter, dtype = Path(task["folder"]), Path(task["adapter"]), getattr(torch, task["dtype"])
    merged = _load_merged(folder, dtype)
    tokenizer = load_tokenizer(folder)
    around = _check_around(adapter, merged, tokenizer)
    compute_in_fp32(merged, Source())
    prompts = [_continue(merged, encode_prompt(tokenizer, prompt)) for prompt in PROMPTS]
    quantization = Quantization(**task["quantization"]) if task["quantization"] else None
    reference = load_reference(Path(task["base"]), adapter, quantization, getattr(torch, task["trained_dtype"]))
    reference.source.dequantised = not task["onto_files"]
    words = _check_vocabulary(merged, reference)
    weights = compare_weights(merged, reference, dtype)
    rows = read_held_out(task["held_out"], tokenizer, _budget(merged))
    measured = _compare(merged, reference, prompts, rows, dtype)
    files = [list_file(folder, file) for file in files_of(folder)]
    found = {**measured, **weights, **around, "vocabulary_size": words, "dtype": dtype_name(dtype), "files": files}
    return {**found, "passed": True}


def _load_merged(folder: Path, dtype: torch.dtype) -> Any:
    """Raises: MergeError where transformers misses a weight in the folder, or finds one too many or of another type."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, output_loading_info=True, **from_folder(folder)
    )
    model, told = loaded
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if told[what]:
            named = ", ".join(map(str, sorted(told[what])[:3]))
            raise MergeError(f"The merged model on disk does not load whole: {what.replace('_', ' ')}: {named}.")
    holds = DTYPES.get(check_weights(folder).dtype)
    says = AutoConfig.from_pretrained(folder, **from_folder(folder)).dtype
    if not holds == says == dtype:
        raise MergeError(f"The merged model on disk holds {holds}, and says {says}; it is to be {dtype}.")
    return model.eval()


def _check_around(adapter: Path, merged: Any, tokenizer: Any) -> dict[str, Any]:
    """Template, end tokens and ties. Raises: MergeError."""
    had = load_tokenizer(adapter)
    if tokenizer.chat_template != had.chat_template:
        raise MergeError("The merged model on disk has another chat template than the adapter.")
    wanted, ends = set(stop_token_ids(merged, had)), merged.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    if missing := sorted(wanted - set(ends)):
        raise MergeError(f"The merged model on disk does not stop at {missing}, where answers end (it does at {ends}).")
    head = merged.get_output_embeddings()
    shared = head is not None and head.weight is merged.get_input_embeddings().weight
    template = tokenizer.chat_template
    return {
        "tied_embeddings": shared,
        "template_sha256": hashlib.sha256(json.dumps(template).encode()).hexdigest() if template else None,
        "eos_token_id": ends,
    }


def _check_vocabulary(merged: Any, reference: Reference) -> int:
    has = len(merged.get_input_embeddings().weight)
    had = len(reference.model.get_base_model().get_input_embeddings().weight)
    if has != had:
        raise MergeError(f"The merged model has {has} words, base and adapter {had}.")
    return has


@torch.inference_mode()
def _logits(model: Any, input_ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=input_ids, use_cache=False).logits[0]
    return logits


def _continue(model: Any, input_ids: torch.Tensor) -> torch.Tensor:
    """Append the likeliest token so many times; an end of sequence does not end it."""
    for _ in range(_NEW_TOKENS):
        input_ids = torch.cat([input_ids, _logits(model, input_ids)[-1:].argmax(-1, keepdim=True)], dim=1)
    return input_ids


def _budget(model: Any) -> int:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return int(min(max(_FLOPS / (2 * parameters), _TOKENS[0]), _TOKENS[1]))


def _compare(
    merged: Any, reference: Reference, prompts: list[torch.Tensor], rows: list[Any], dtype: torch.dtype
) -> dict[str, Any]:
    """Answers to prompts, then held-out rows. Raises: MergeError where they differ by more than rounding explains."""
    apart, effect, same, of = Divergence(), Divergence(), 0, 0
    for ids in prompts:
        was, now = reference.logits(ids), _logits(merged, ids)
        apart.add(was, now)
        effect.add(was, reference.base_logits(ids))
        chosen = was[-_NEW_TOKENS - 1 : -1].argmax(-1) == ids[0, -_NEW_TOKENS:]
        same, of = same + int(chosen.int().cumprod(0).sum()), of + _NEW_TOKENS
    losses = _compare_rows(merged, reference, rows, apart)
    found = {**apart.to_json(), "greedy_tokens": of, "greedy_tokens_same": same, "greedy_tokens_equal": same == of}
    allowed = ROUNDING[dtype]
    if not apart.relative <= allowed:  # a NaN is never within it
        raise MergeError(
            f"The merged model on disk answers otherwise than base and adapter: its logits are {apart.relative:.2%} of "
            f"their spread off (at most {found['max_logit_difference']:.3g}); rounding to {dtype_name(dtype)} "
            f"explains {allowed:.1%}. {same} of {of} tokens chosen greedily are the same.",
            advice="Merge again in fp32. The adapter itself is unharmed and can be downloaded.",
        )
    warning = rounding_warning(apart.relative, effect.relative, dtype)
    return {**found, "adapter_effect": effect.relative, "eval_loss": losses, "warning": warning}


def _compare_rows(merged: Any, reference: Reference, rows: list[Any], apart: Divergence) -> dict[str, Any] | None:
    """Mean losses of the labelled tokens: of the merged model, of base and adapter, and on a base held otherwise."""
    losses = {name: MeanLoss() for name in ("merged", "base_and_adapter", "dequantised", "original")}
    for row in rows:
        ids = torch.tensor([row.input_ids])
        was, now = reference.logits(ids), _logits(merged, ids)
        apart.add(was, now)
        losses["merged"].add(now, row.labels)
        losses["base_and_adapter"].add(was, row.labels)
        if reference.source.twins:
            with reference.on_other_base():
                other = reference.logits(ids)
            held, alike = ("original", "dequantised") if reference.source.dequantised else ("dequantised", "original")
            losses[held].add(other, row.labels)
            losses[alike].add(was, row.labels)
    if not losses["merged"].tokens:
        return None
    known = {name: loss.value for name, loss in losses.items() if loss.tokens}
    return {**known, "tokens": losses["merged"].tokens, "rows": len(rows)}
