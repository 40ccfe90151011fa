"""Proof that a model on disk answers as the one in memory did: logits and greedy tokens compared.

For a merge in three steps, so that a fault cannot hide behind rounding: the sum in fp32 equals base and adapter
(`_SAME`); rounding it to the saved dtype costs what rounding may cost (`_ROUNDING`); what is on disk equals the rounded
sum (`_SAME`). A model that was trained whole has no sum to prove; the other two steps are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from app.core.errors import JobError, MergeError

_PROMPTS = ("What is the capital of France?", "Write one sentence about the sea.", "Add 17 and 25.")
_NEW_TOKENS = 8

# Bounds on the root-mean-square difference of the logits, as a share of their spread over the vocabulary.
_SAME = 1e-3  # two ways of computing the same sum in fp32
# A weight rounded to b bits of fraction is off by up to 2^-(b+1) of it (bf16: b = 7, fp16: b = 10), and dozens of
# layers add that up: 1 to 8 % was seen in bf16 on a 135M model.
_ROUNDING = {torch.bfloat16: 0.2, torch.float16: 0.04, torch.float32: _SAME}
_LARGE_SHARE = 0.25  # of the adapter's effect: from here on rounding is worth a warning


@dataclass(frozen=True, slots=True)
class Subject:
    """What is proven, in the words of messages and certificate."""

    saved: str
    origin: str
    change: str
    effect_name: str  # in the certificate: the relative logit difference that the change makes to its base
    error: type[JobError]
    advice: str
    remedy: str


MERGE = Subject(
    saved="The merged model",
    origin="base and adapter",
    change="the adapter itself",
    effect_name="adapter_effect",
    error=MergeError,
    advice="Merge again in fp32. The adapter itself is unharmed and can be downloaded.",
    remedy="Merge in fp32 to keep all of it.",
)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a model says. Per prompt: token ids (1, seq), fp32 logits (seq, vocabulary) on the CPU; new tokens."""

    input_ids: list[torch.Tensor]
    logits: list[torch.Tensor]
    new_tokens: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far two models are apart on the same tokens. Differences are of logits; relative ones of their spread."""

    max_logit_difference: float
    mean_logit_difference: float
    relative_difference: float
    greedy_tokens_equal: bool
    compared_tokens: int
    vocabulary_size: int


def measure_reference(model: Any, tokenizer: Any, new_tokens: int = _NEW_TOKENS) -> Reference:
    """Let the model continue a few prompts greedily and keep all its logits."""
    ids = [_continue(model, _encode(tokenizer, prompt), new_tokens) for prompt in _PROMPTS]
    return Reference(ids, [_logits(model, each) for each in ids], new_tokens)


def measure_again(reference: Reference, model: Any, subject: Subject = MERGE) -> Reference:
    """What another model says on the same tokens. Raises: the subject's error where its vocabulary is another."""
    logits = [_logits(model, ids) for ids in reference.input_ids]
    had, has = reference.logits[0].shape[1], logits[0].shape[1]
    if has != had:
        raise subject.error(f"{subject.saved} has {has} words, its base {had}.")
    return Reference(reference.input_ids, logits, reference.new_tokens)


def compare(reference: Reference, other: Reference) -> Comparison:
    """How far two models' logits on the same tokens are apart.

    Where the likeliest token is the same at each generated position, greedy decoding gives the same text; where it is
    not, the two candidates were within twice the largest difference of each other.
    """
    was, now = torch.cat(reference.logits), torch.cat(other.logits)
    tails = zip(reference.logits, other.logits, strict=True)
    equal = [_choices(a, reference.new_tokens).equal(_choices(b, reference.new_tokens)) for a, b in tails]
    difference = was - now
    return Comparison(
        max_logit_difference=float(difference.abs().max()),
        mean_logit_difference=float(difference.abs().mean()),
        relative_difference=float(difference.square().mean().sqrt() / was.std(dim=1).mean()),
        greedy_tokens_equal=all(equal),
        compared_tokens=len(was),
        vocabulary_size=was.shape[1],
    )


def require_same(reference: Reference, other: Reference, what: str) -> None:
    """Raises: MergeError where the two differ by more than the order of additions in fp32 explains."""
    _require(compare(reference, other), _SAME, what, MERGE)


def certify(
    reference: Reference,
    rounded: Reference,
    folder: Path,
    dtype: torch.dtype,
    effect: float,
    subject: Subject = MERGE,
) -> dict[str, Any]:
    """Load the folder as any program would, compare, and return the certificate. Raises: the subject's error.

    `reference` is what the folder stands for (base and adapter, or the trained model), `rounded` the same with its
    weights in memory rounded to `dtype`, `effect` the relative difference that training made. The weights are those on
    disk; the arithmetic is fp32, so that only their rounding shows.
    """
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    on_disk = measure_again(reference, model.eval(), subject)
    _require(compare(rounded, on_disk), _SAME, f"{subject.saved} on disk", subject)
    comparison = compare(reference, on_disk)
    _require(comparison, _ROUNDING[dtype], f"{subject.saved}, rounded to {dtype_name(dtype)},", subject)
    warning = rounding_warning(comparison.relative_difference, effect, dtype, subject)
    measured = {**asdict(comparison), subject.effect_name: effect, "dtype": dtype_name(dtype)}
    return {**measured, "warning": warning, "passed": True}


def describe_certificate(proof: Mapping[str, Any], subject: Subject = MERGE) -> str:
    """What was verified, in a sentence for the log."""
    return (
        f"verified: {subject.saved.lower()} on disk, in {proof['dtype']}, answers as {subject.origin}; its logits are "
        f"{proof['relative_difference']:.2%} of their spread off ({subject.change}: {proof[subject.effect_name]:.1%})"
    )


def rounding_warning(rounding: float, effect: float, dtype: torch.dtype, subject: Subject = MERGE) -> str | None:
    """What to say where rounding takes much of a small effect; both are relative logit differences."""
    if rounding <= _LARGE_SHARE * effect:
        return None
    return (
        f"Rounding to {dtype_name(dtype)} moves the logits by {rounding:.1%} of their spread, {subject.change} by "
        f"{effect:.1%}: part of what was learned may be lost. {subject.remedy}"
    )


def _require(comparison: Comparison, tolerance: float, what: str, subject: Subject) -> None:
    """Raises: the subject's error beyond the tolerance. A NaN is never within it."""
    if not comparison.relative_difference <= tolerance:
        raise subject.error(
            f"{what} differs from {subject.origin}: its logits are {comparison.relative_difference:.2%} of their "
            f"spread off (at most {comparison.max_logit_difference:.3g}); {tolerance:.1%} is allowed.",
            advice=subject.advice,
        )


def dtype_name(dtype: torch.dtype) -> str:
    """As configurations spell it: float32, bfloat16."""
    return str(dtype).removeprefix("torch.")


def _encode(tokenizer: Any, prompt: str) -> torch.Tensor:
    """Token ids (1, seq) of a one-turn chat, or of the plain text where there is no chat template."""
    if tokenizer.chat_template is None:
        plain: torch.Tensor = tokenizer(prompt, return_tensors="pt")["input_ids"]
        return plain
    chat = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids: torch.Tensor = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return ids


@torch.inference_mode()
def _continue(model: Any, input_ids: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """Append the likeliest token so many times; an end of sequence does not end it."""
    for _ in range(new_tokens):
        logits = _logits(model, input_ids)
        input_ids = torch.cat([input_ids, logits[-1:].argmax(-1, keepdim=True)], dim=1)
    return input_ids


@torch.inference_mode()
def _logits(model: Any, input_ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=input_ids.to(model.device), use_cache=False).logits[0].float().cpu()
    return logits


def _choices(logits: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """The likeliest tokens at the positions that predicted the generated ones."""
    return logits[-new_tokens - 1 : -1].argmax(-1)
