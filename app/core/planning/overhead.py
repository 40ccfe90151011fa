"""What a process takes of a GPU beside its tensors."""

from __future__ import annotations

CONTEXT_BYTES = (
    512 << 20
)  # CUDA's context with the kernels of torch, cuBLAS and bitsandbytes; differs by card and driver
_FRAGMENTS = 0.05  # of what is allocated, with the expandable segments that worker.child asks for; twice that without


def overhead_bytes(allocated: int) -> int:
    """Context and fragments, in bytes: an estimate, which finished jobs on the box correct (see calibration)."""
    return CONTEXT_BYTES + round(_FRAGMENTS * allocated)
