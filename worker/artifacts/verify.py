"""Proof that a model on disk answers as the one in memory did: logits and greedy tokens compared.

For a merge in three steps, so that a fault cannot hide behind rounding: the sum in fp32 equals base and adapter
(`_SAME`); rounding it to the saved dtype costs what rounding may cost (`ROUNDING`); what is on disk equals the rounded
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
from worker.artifacts.answers import Comparison, Reference, compare, logits_of
from worker.own_code import from_folder

# Bounds on the root-mean-square difference of the logits, as a share of their spread over the vocabulary.
_SAME = 1e-3  # two ways of computing the same sum in fp32
# A weight rounded to b bits of fraction is off by up to 2^-(b+1) of it (bf16: b = 7, fp16: b = 10), and dozens of
# layers add that up: 1 to 8 % was seen in bf16 on a 135M model.
ROUNDING = {torch.bfloat16: 0.2, torch.float16: 0.04, torch.float32: _SAME}
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


def measure_again(reference: Reference, model: Any, subject: Subject = MERGE) -> Reference:
    """What another model says on the same tokens. Raises: the subject's error where its vocabulary is another."""
    logits = [logits_of(model, ids) for ids in reference.input_ids]
    had, has = reference.logits[0].shape[1], logits[0].shape[1]
    if has != had:
        raise subject.error(f"{subject.saved} has {has} words, its base {had}.")
    return Reference(reference.input_ids, logits, reference.new_tokens)


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
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **from_folder(folder))
    on_disk = measure_again(reference, model.eval(), subject)
    _require(compare(rounded, on_disk), _SAME, f"{subject.saved} on disk", subject)
    comparison = compare(reference, on_disk)
    _require(comparison, ROUNDING[dtype], f"{subject.saved}, rounded to {dtype_name(dtype)},", subject)
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
