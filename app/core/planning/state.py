"""What is held throughout a step: weights, adapter, and the optimizer's state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.core.planning.architecture import Architecture

_BLOCK_8_BIT = 256  # values that share a float32 scale: bitsandbytes.optim.optimizer
_LEAST_8_BIT = 4_096  # elements of a tensor, for its state to be held in 8 bits
_LEAST_PAGED = 100_000  # elements of a tensor, for its state to be paged


def packed_bytes(*, double: bool) -> float:
    """Of a weight of 4 bits: blocks of 64 share a scale, in float32, or in 8 bits with a float32 for 256 of them.

    Source: QLoRA (Dettmers et al., 2023), section 3.
    """
    return 0.5 + (1 / 64 + 4 / (64 * 256) if double else 4 / 64)


def weight_bytes(architecture: Architecture, bits: int, width: int, *, double: bool = True) -> float:
    """The base's weights: those of linear modules in 4, 8 (and a float32 scale for each output) or 16 bits and more."""
    if bits == 16:
        return width * architecture.parameters
    kept = width * (architecture.parameters - architecture.linear_weights)
    if bits == 4:
        return kept + packed_bytes(double=double) * architecture.linear_weights
    scales = architecture.layers * sum(linear.outputs for linear in architecture.linears)
    return kept + architecture.linear_weights + 4 * scales


@dataclass(frozen=True, slots=True)
class Learned:
    """Trainable tensors that are alike: `count` of `elements` each, of so many bytes an element."""

    elements: int
    width: int
    count: int = 1

    @property
    def size(self) -> int:
        return self.elements * self.width * self.count


@dataclass(frozen=True, slots=True)
class OptimizerBytes:
    """On the device: the state, and what lives during the optimizer's own step."""

    state: float
    temporary: float


def optimizer_bytes(optim: str, tensors: Iterable[Learned], *, on_cuda: bool = True) -> OptimizerBytes:
    """AdamW's two moments, in each tensor's own type, or in 8 bits; what is paged counts for none.

    On CUDA torch's AdamW takes the root of all second moments at once, elsewhere that of one, which it then divides.
    The fused one, and bitsandbytes' need nothing. Sources: torch.optim.adam, _multi_tensor_adam and
    _single_tensor_adam; bitsandbytes.optim.optimizer.Optimizer2State.
    """
    tensors = list(tensors)
    if optim == "adamw_torch":
        whole = float(sum(tensor.size for tensor in tensors))
        largest = max(tensor.elements * tensor.width for tensor in tensors)
        return OptimizerBytes(2 * whole, whole if on_cuda else 2.0 * largest)
    if optim == "adamw_torch_fused":
        return OptimizerBytes(2.0 * sum(tensor.size for tensor in tensors), 0.0)
    paged = optim.startswith("paged")
    state = sum(
        tensor.count * _of_bitsandbytes(tensor.elements, "8bit" in optim)
        for tensor in tensors
        if not (paged and tensor.elements >= _LEAST_PAGED)
    )
    return OptimizerBytes(state, 0.0)


def _of_bitsandbytes(elements: int, in_8_bits: bool) -> float:
    if not in_8_bits or elements < _LEAST_8_BIT:
        return 8.0 * elements
    return 2.0 * elements + 8.0 * -(-elements // _BLOCK_8_BIT)
