"""What the training callback calls, and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Duties:
    """What the callback calls. `evaluate` measures `eval_loss` and what the task has beside it, of the base model where
    told; None without rows. `take_metrics` gives what the steps since the last time came to beside their loss.

    `save_checkpoint` takes the step, and the step of the best checkpoint, which outlives its turn. What a run needs
    to go on is saved with it; `save_state` saves that alone.
    """

    tokens_seen: Callable[[], int]
    save_checkpoint: Callable[[int, int | None], None]
    save_state: Callable[[int | None], None]
    evaluate: Callable[[bool], dict[str, float]] | None
    show_samples: Callable[[int], None] | None = None  # of the model after so many steps
    take_metrics: Callable[[], dict[str, float]] = dict
    probe: Callable[[Any], None] | None = None  # called with the optimizer before the first step, where asked for


@dataclass(slots=True)
class RunTotals:
    """What a run came to so far."""

    train_loss: float | None = None
    eval_loss: float | None = None
    tokens: int = 0
    train_seconds: float = 0.0
    beside: dict[str, float] = field(default_factory=dict)  # the newest of what a task measures beside the loss


@dataclass(slots=True)
class Mark:
    """The last logged point, from which rates are counted."""

    tokens: int = 0
    seconds: float = 0.0
