"""A merged model's weights, each compared with peft's own sum of it."""

from __future__ import annotations

from typing import Any

import torch

from app.core.errors import MergeError
from worker.artifacts.reference import Reference

# Rounding is off by up to half a step, and a step is 2^-b of the value (bf16: b = 7, fp16: b = 10).
_HALF_STEP = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 0.0}
_SMALLEST = {torch.bfloat16: 2.0**-126, torch.float16: 2.0**-24, torch.float32: 2.0**-126}  # no step below it counts
_SUM = 1e-6  # of the weight's largest value: what the order of additions in fp32 may change
_DIFFERING = 1e-3  # of a weight's values may be rounded to the other side by that


def compare_weights(merged: Any, reference: Reference, dtype: torch.dtype) -> dict[str, Any]:
    """{weights, values, values_differing}: how many there are, and how many are not the very digits of peft's sum.

    Raises: MergeError that names the weight which is further off than rounding to `dtype` explains.
    """
    weights, values, differing = 0, 0, 0
    for name, parameter in merged.named_parameters():
        wanted = reference.merged(name)
        if wanted.shape != parameter.shape:
            raise MergeError(f"{name} on disk is {list(parameter.shape)}, base and adapter {list(wanted.shape)}.")
        count = _differing(name, parameter.data, wanted, dtype)
        weights, values, differing = weights + 1, values + parameter.numel(), differing + count
    return {"weights": weights, "values": values, "values_differing": differing}


def _differing(name: str, found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> int:
    """How many values are not the rounded ones. Raises: MergeError."""
    count = int((found != wanted.to(dtype)).sum())
    if count == 0:
        return 0
    off = (found.float() - wanted).abs()
    allowed = wanted.abs() * _HALF_STEP[dtype] + (float(wanted.abs().max()) * _SUM + _SMALLEST[dtype])
    beyond = int((~(off <= allowed)).sum())  # a NaN is never within it
    if beyond or (dtype != torch.float32 and count > max(1, _DIFFERING * found.numel())):
        raise MergeError(
            f"{name} on disk is not the sum of base and adapter: {count} of its {found.numel()} values differ, "
            f"by up to {float(off.max()):.3g} (values go up to {float(wanted.abs().max()):.3g}).",
            advice="Merge again. The adapter itself is unharmed and can be downloaded.",
        )
    return count
