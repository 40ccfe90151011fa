"""What the training callback calls, and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Duties:
    """What the callback calls. `evaluate` measures the eval loss, of the base model where told; None without rows.

    `save_checkpoint` takes the step, and the step of the best checkpoint, which outlives its turn. What a run needs
    to go on is saved with it.
    """

    tokens_seen: Callable[[], int]
    save_checkpoint: Callable[[int, int | None], None]
    evaluate: Callable[[bool], float] | None


@dataclass(slots=True)
class RunTotals:
    """What a run came to so far."""

    train_loss: float | None = None
    eval_loss: float | None = None
    tokens: int = 0
    train_seconds: float = 0.0


@dataclass(slots=True)
class Mark:
    """The last logged point, from which rates are counted."""

    tokens: int = 0
    seconds: float = 0.0
