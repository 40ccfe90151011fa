"""Cross-entropy of each position straight from hidden states and the head's weight, a tile of logits at a time.

Forward and backward each compute a tile's logits, use them up in place and drop them, so the peak grows neither with
the number of positions nor with the vocabulary. It works in any type and for a head that learns too; sums are float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

TILE_ELEMENTS = 1 << 23  # logits of a tile: 32 MiB in float32, and a copy in the head's type beside it


def position_losses(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log softmax(hidden @ weight.T)[targets] for each row, (rows,) in float32, differentiable by hidden and weight.

    `hidden` is (rows, features), `weight` (vocabulary, features), `targets` (rows,). The product is computed in
    autocast's type where autocast is on, else in the weight's.
    """
    losses: torch.Tensor = _TiledCrossEntropy.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return losses


class _TiledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        device = hidden.device.type
        ctx.dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        head = weight.to(ctx.dtype)
        scored = [_score(hidden[rows].to(ctx.dtype), head, targets[rows]) for rows in _tiles(hidden, weight)]
        losses, normalisers = (torch.cat(parts) for parts in zip(*scored, strict=True))
        ctx.save_for_backward(hidden, weight, targets, normalisers)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        hidden, weight, targets, normalisers = ctx.saved_tensors
        head = weight.to(ctx.dtype)
        by_hidden, by_weight = torch.empty_like(hidden), None
        if ctx.needs_input_grad[1]:
            by_weight = torch.zeros_like(weight)
        for rows in _tiles(hidden, weight):
            features = hidden[rows].to(ctx.dtype)
            slope = _slope(features, head, targets[rows], normalisers[rows], gradient[rows])
            by_hidden[rows] = slope @ head
            if by_weight is not None:
                by_weight += slope.t() @ features
            del slope  # before the next one is made
        return by_hidden, by_weight, None


def _tiles(hidden: torch.Tensor, weight: torch.Tensor) -> list[slice]:
    """At least one, so that no rows have no losses."""
    height = max(1, TILE_ELEMENTS // len(weight))
    return [slice(start, start + height) for start in range(0, max(len(hidden), 1), height)]


def _logits(features: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """(rows, vocabulary) in float32, a tensor of its own that may be changed in place."""
    with torch.autocast(features.device.type, enabled=False):
        return torch.nn.functional.linear(features, head).float()


def _score(features: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's loss, and the logarithm of its softmax's denominator."""
    logits = _logits(features, head)
    chosen, highest = logits.gather(1, targets[:, None])[:, 0], logits.amax(dim=1)
    normalisers = highest + logits.sub_(highest[:, None]).exp_().sum(dim=1).log_()
    return normalisers - chosen, normalisers


def _slope(
    features: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, normalisers: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """The gradient by the logits, in the head's type: softmax, less one at the target, times each row's weight."""
    slope = _logits(features, head).sub_(normalisers[:, None]).exp_()
    slope[torch.arange(len(slope), device=slope.device), targets] -= 1
    return slope.mul_(weights[:, None]).to(head.dtype)
