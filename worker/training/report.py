"""What a run tells while it trains: its phase, how far it is and how long it will take, and a point of metrics."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager

from transformers import TrainerState

from worker.spool import SpoolWriter
from worker.training.clock import TrainingClock, seconds_left
from worker.training.duties import Duties, Mark, RunTotals

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS = 1.0


class Report:
    """Writes into the spool, and counts what a run came to so far in `totals`."""

    def __init__(self, spool: SpoolWriter) -> None:
        self.totals = RunTotals()
        self._spool = spool
        self._clock = TrainingClock()
        self._mark = Mark()
        self._last_progress = 0.0

    def go_on(self, totals: RunTotals) -> None:
        """Count on from another run's totals, at its last logged point."""
        self.totals, self._mark = totals, Mark(totals.tokens, totals.train_seconds)

    def start_clock(self) -> None:
        """Steps are timed from now on, after those that were timed before."""
        self._clock = TrainingClock(self.totals.train_seconds)

    def pause_clock(self) -> AbstractContextManager[None]:
        """What runs inside is no time of training."""
        return self._clock.paused()

    def enter(self, phase: str, state: TrainerState) -> None:
        """Begin a phase, with the time left. How long it takes is not known unless it is that of the steps."""
        self._spool.phase(phase)
        self._tell(state, self.totals.train_seconds if phase == "train" else None)

    def leave_steps(self, state: TrainerState) -> None:
        """There are no more steps; how long the rest takes is not known."""
        self._tell(state, None)

    def progress(self, state: TrainerState) -> None:
        """After each step, but not more often than once a second; after the last in any case."""
        now = time.monotonic()
        if now - self._last_progress < _PROGRESS_SECONDS and state.global_step < state.max_steps:
            return
        self._last_progress = now
        self._tell(state, self._clock.seconds)

    def _tell(self, state: TrainerState, seconds: float | None) -> None:
        left = None if seconds is None else seconds_left(state.global_step, state.max_steps, seconds)
        self._spool.progress(state.global_step, state.max_steps, left)

    def point(self, state: TrainerState, logs: dict[str, float], duties: Duties) -> None:
        """The metrics of the steps since the last point, into spool, log and totals."""
        mark, now = self._mark, Mark(duties.tokens_seen(), self._clock.seconds)
        self._mark = now
        rate = (now.tokens - mark.tokens) / max(now.seconds - mark.seconds, 1e-9)
        self.totals.train_loss, self.totals.tokens, self.totals.train_seconds = logs["loss"], now.tokens, now.seconds
        beside = duties.take_metrics()
        self.totals.beside.update(beside)
        self._spool.metrics(
            state.global_step,
            {
                "loss": logs["loss"],
                "learning_rate": logs["learning_rate"],
                "grad_norm": logs["grad_norm"],
                "tokens": now.tokens,
                "tokens_per_second": rate,
                "epoch": logs["epoch"],
                **beside,
            },
        )
        logger.info(
            "step %d/%d  loss %.4f  lr %.2e  grad norm %.3f  %.0f tokens/s",
            state.global_step, state.max_steps, logs["loss"], logs["learning_rate"], logs["grad_norm"], rate,
        )  # fmt: skip

    def evaluated(self, step: int, values: dict[str, float]) -> None:
        """What an eval of the model after `step` steps came to."""
        self._spool.metrics(step, values)
        logger.info("step %d  eval loss %.4f", step, values["eval_loss"])
