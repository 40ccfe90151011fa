"""The variable-length attention kernel beside attention row by row, on this machine's GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention

from worker.training.varlen import attend_varlen, kernel_works

LENGTHS = (300, 17, 129)
HEADS, KEY_HEADS, HEAD_DIM = 8, 2, 64
TOLERANCE = 2e-2  # of the largest value: bfloat16 rounds to 2^-8

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def measure_attention(device: torch.device) -> float | None:
    """Largest difference of outputs and gradients, as a share of the largest value; None where there is no kernel."""
    if not kernel_works(device, torch.bfloat16, HEAD_DIM):
        return None
    torch.manual_seed(0)
    shapes = [(1, heads, sum(LENGTHS), HEAD_DIM) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    operands = [torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    pairs = zip(_results(_by_kernel, operands), _results(_by_row, operands), strict=True)
    return max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)


def _by_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return attend_varlen(query, key, value, LENGTHS, None)


def _by_row(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    rows = zip(*(tensor.split(LENGTHS, dim=2) for tensor in (query, key, value)), strict=True)
    outputs = [scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True) for q, k, v in rows]
    return torch.cat(outputs, dim=2).transpose(1, 2)


def _results(attention: Attention, operands: list[torch.Tensor]) -> list[torch.Tensor]:
    """The output and the gradient of its sum of squares by each operand, in fp32."""
    output = attention(*operands).float()
    return [output.detach(), *(each.float() for each in torch.autograd.grad(output.square().sum(), operands))]
