"""How long a run is: rows, optimizer steps, tokens, and the time that this box would take for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from app.core.datasets.split import held_out_of
from app.core.jobs.spec import TrainingSpec


@dataclass(frozen=True, slots=True)
class Past:
    """What this box has seen: tokens per second with this model and method, and tokens of a row of this dataset."""

    tokens_per_second: float | None = None
    tokens_per_row: float | None = None
    jobs: int = 0  # that the speed is taken from


@dataclass(frozen=True, slots=True)
class Schedule:
    """Of a whole run; None for what cannot be told."""

    rows_train: int | None
    rows_eval: int | None
    steps: int | None
    epochs: float | None
    tokens: int | None
    seconds: int | None
    seconds_reason: str  # from what the time is told, or why it is not


def make_schedule(spec: TrainingSpec, rows: int | None, past: Past) -> Schedule:
    """`rows` are those of the dataset, as far as they are known. Packing is not foreseen: it makes the steps fewer."""
    held_out = None if rows is None else held_out_of(rows, spec.eval_fraction, spec.eval_max_rows)
    train = None if rows is None or held_out is None else rows - held_out
    effective = effective_batch(spec)
    per_epoch = math.ceil(train / effective) if train else None
    steps = spec.max_steps or (math.ceil(per_epoch * spec.num_train_epochs) if per_epoch else None)
    epochs = round(steps / per_epoch, 3) if steps and per_epoch else None
    drawn = min(steps * effective, math.ceil(epochs * train)) if steps and epochs and train else None
    tokens = round(drawn * past.tokens_per_row) if drawn and past.tokens_per_row else None
    seconds = round(tokens / past.tokens_per_second) if tokens and past.tokens_per_second else None
    return Schedule(train, held_out, steps, epochs, tokens, seconds, _reason(past, seconds))


def effective_batch(spec: TrainingSpec) -> int:
    """Rows of an optimizer step."""
    return spec.per_device_train_batch_size * spec.gradient_accumulation_steps


def _reason(past: Past, seconds: int | None) -> str:
    if seconds is not None:
        return f"from {past.jobs} finished job{'s' if past.jobs > 1 else ''} on this box"
    if past.tokens_per_second is None:
        return "unknown: no finished job of this model and method on this box"
    return "unknown: no finished job has read this dataset on this box"
