"""How many rows a dataset's eval split holds out."""

from __future__ import annotations


def share_of(count: int, eval_fraction: float) -> int:
    """How many of so many rows the fraction alone holds out: at least one, and at least one is left to train on."""
    return min(max(round(count * eval_fraction), 1), count - 1) if eval_fraction > 0 and count > 1 else 0


def held_out_of(count: int, eval_fraction: float, at_most: int | None) -> int:
    """How many of so many rows are held out."""
    return min(share_of(count, eval_fraction), count if at_most is None else at_most)
