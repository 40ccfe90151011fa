"""How many rows to hold out for the eval loss."""

from __future__ import annotations

from app.core.datasets.report import Split
from worker.datasets.duplicates import Duplicates
from worker.training.reading import split_rows

_FEW_ROWS = 1000  # below, a twentieth would be too few to tell runs apart
_ENOUGH_ROWS = 512


def suggest_split(rows: int, duplicates: Duplicates, seed: int) -> Split | None:
    """For a dataset of so many rows, all of which can be used; None for one row alone."""
    if rows < 2:
        return None
    fraction = 0.1 if rows < _FEW_ROWS else 0.05
    _, held_out = split_rows(rows, fraction, seed, _ENOUGH_ROWS)
    return {
        "rows": len(held_out),
        "eval_fraction": fraction,
        "eval_max_rows": _ENOUGH_ROWS,
        "reason": _reason(rows, len(held_out)),
        "twins": duplicates.count_twins(held_out),
    }


def _reason(rows: int, held_out: int) -> str:
    if held_out == _ENOUGH_ROWS:
        return "the error of the eval loss falls with the square root of its rows, so more would mostly take time"
    if rows < _FEW_ROWS:
        return "the dataset is small: a tenth, so that the eval loss rests on more than a handful of rows"
    return "a twentieth of the rows, the usual share"
