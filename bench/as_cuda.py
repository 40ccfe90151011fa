"""Lets fake tensors on the CPU be computed as on CUDA: in the types of its autocast, with its kernels' memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

import worker.training.attention as attention

_autocast_enabled = torch.is_autocast_enabled
_layer_norm, _pow, _sdpa = F.layer_norm, torch.pow, F.scaled_dot_product_attention


class _Dropout(torch.autograd.Function):
    """Keeps a byte for each element; its backward pass is one kernel."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(torch.empty(x.shape, dtype=torch.bool))
        return torch.empty_like(x)

    @staticmethod
    def backward(_ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(gradients[0])


class Unpacked(torch.autograd.Function):
    """y = W x where W, of 4 bits, is unpacked for the forward and again for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, outputs: int) -> torch.Tensor:
        ctx.shape = (outputs, x.shape[-1])
        return x @ torch.empty(ctx.shape, dtype=x.dtype).t()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0] @ torch.empty(ctx.shape, dtype=gradients[0].dtype), None


class InEightBits(torch.autograd.Function):
    """y = W x where x is rounded to 8 bits and W unpacked for the backward pass, as bitsandbytes' MatMul8bitLt.

    That one keeps its input as an attribute: neither does checkpointing drop it, nor the backward pass as it goes.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, outputs: int) -> torch.Tensor:
        ctx.kept, ctx.shape = x, (outputs, x.shape[-1])
        rounded = x.to(torch.float16).to(torch.int8)
        product = torch.empty((*rounded.shape[:-1], outputs), dtype=torch.int32)
        return product.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0] @ torch.empty(ctx.shape, dtype=gradients[0].dtype), None


def _dropout(self: torch.nn.Dropout, x: torch.Tensor) -> torch.Tensor:
    return _Dropout.apply(x) if self.training and self.p else x


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.float() if _autocast_enabled("cpu") else x


def _attend(*operands: torch.Tensor, **named: Any) -> torch.Tensor:
    """CUDA's kernels have a dropout of their own, which keeps nothing."""
    return _sdpa(*operands, **{**named, "dropout_p": 0.0})


def _attend_rows_at_once(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _lengths: Any, scaling: float | None
) -> torch.Tensor:
    """The kernel for rows of any length keeps what attention to a single long row keeps."""
    attended = F.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return attended.transpose(1, 2)


@contextmanager
def computed_as_on_cuda() -> Iterator[None]:
    """Sources: torch/aten/src/ATen/autocast_mode.h for the types; torch.nn.attention.varlen."""
    patches = [
        patch.object(torch, "is_autocast_enabled", lambda device="cpu": _autocast_enabled(device)),
        patch.object(torch.nn.Dropout, "forward", _dropout),
        patch.object(F, "layer_norm", lambda x, *rest, **named: _layer_norm(_wide(x), *rest, **named)),
        patch.object(torch, "pow", lambda x, *rest, **named: _pow(_wide(x), *rest, **named)),
        patch.object(F, "scaled_dot_product_attention", _attend),
        patch.object(attention, "varlen_suits", lambda *given: not given[-1]),
        patch.object(attention, "attend_varlen", _attend_rows_at_once),
    ]
    with ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield
