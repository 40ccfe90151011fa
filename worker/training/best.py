"""The best eval loss of a run, and when to stop waiting for a better one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class BestEval:
    """Follows the eval losses of the trained model, in nats; with a patience of None it never gives up."""

    patience: int | None
    loss: float | None = None
    step: int | None = None
    stopped: bool = False  # patience has run out
    _worse: int = 0  # evals since the best one

    @property
    def kept_step(self) -> int | None:
        """The step whose weights outlive their turn: with a patience they are what is saved in the end."""
        return self.step if self.patience else None

    def take(self, step: int, loss: float) -> bool:
        """Note an eval; returns whether it is the best so far."""
        if self.loss is None or loss < self.loss:
            self.loss, self.step, self._worse = loss, step, 0
            return True
        self._worse += 1
        self.stopped = self.patience is not None and self._worse >= self.patience
        return False

    def go_on(self) -> None:
        """The run is made longer: whatever it has waited for in vain, it waits anew."""
        if self.stopped:
            self.stopped, self._worse = False, 0

    def summary(self) -> dict[str, Any]:
        """What the job's summary says of it: nothing without a patience, for then the best one is not kept."""
        if self.patience is None or self.step is None:
            return {}
        return {"best_eval_loss": self.loss, "best_eval_step": self.step, "stopped_early": self.stopped}
