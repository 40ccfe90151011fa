"""Attention within each row of a flattened batch in one kernel call: CUDA's variable-length flash attention.

Source: torch.nn.attention.varlen; FlashAttention-2 (Dao, 2023). Elsewhere the rows are attended to one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn

logger = logging.getLogger(__name__)

_DTYPES = (torch.float16, torch.bfloat16)
_MAX_HEAD_DIM = 256
_CAUSAL = (-1, 0)  # all that is to the left, nothing to the right
_TRIED_LENGTHS = (3, 2)


def varlen_suits(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float) -> bool:
    """Whether the kernel is there and takes these operands, each (1, heads, tokens, head_dim); it has no dropout."""
    head_dim = query.shape[-1]
    if query.device.type != "cuda" or dropout or not key.dtype == value.dtype == query.dtype:
        return False
    if query.dtype not in _DTYPES or head_dim > _MAX_HEAD_DIM or head_dim % 8 or value.shape[-1] != head_dim:
        return False
    return kernel_works(query.device, query.dtype, head_dim)


@lru_cache(maxsize=16)
def kernel_works(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Try the kernel once, forward and backward, on a few tokens; the log says where it cannot be used, and why."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        query = torch.ones(1, 2, sum(_TRIED_LENGTHS), head_dim, device=device, dtype=dtype, requires_grad=True)
        try:
            output = attend_varlen(query, query[:, :1], query[:, :1], _TRIED_LENGTHS, None)
            torch.autograd.grad(output.sum(), query)
        except (RuntimeError, NotImplementedError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            logger.warning("rows are attended to one by one: this GPU has no variable-length attention (%s)", error)
            return False
    logger.info("rows are attended to by the variable-length kernel")
    return True


def attend_varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], scaling: float | None
) -> torch.Tensor:
    """Causal attention within each row; (1, heads, tokens, head_dim) each, keys and values with as many heads or fewer.

    `lengths` add up to `tokens`. Returns (1, tokens, heads, head_dim).
    """
    ends, longest = _row_ends(tuple(lengths), query.device), max(lengths)
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    output: Any = varlen_attn(
        q, k, v, ends, ends, longest, longest, scale=scaling, window_size=_CAUSAL, enable_gqa=q.shape[1] != k.shape[1]
    )
    attended: torch.Tensor = output[None]
    return attended


@lru_cache(maxsize=4)
def _row_ends(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Where rows start and end, (rows + 1,) int32: once per batch, not once per layer.

    Never an inference tensor, for the backward pass keeps it.
    """
    with torch.inference_mode(mode=False):
        return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
