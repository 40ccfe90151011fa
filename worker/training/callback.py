"""What happens beside the steps: metrics and progress into the spool; eval, save and stop where they are due."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from app.core.errors import JobCancelled, JobError
from app.core.jobs.spec import TrainingSpec
from worker.context import JobContext, StopRequest
from worker.training.clock import TrainingClock

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS = 1.0


@dataclass(slots=True)
class Duties:
    """What the callback calls. `evaluate` measures the eval loss, of the base model where told; None without rows."""

    tokens_seen: Callable[[], int]
    save_checkpoint: Callable[[int], None]
    evaluate: Callable[[bool], float] | None


@dataclass(slots=True)
class RunTotals:
    """What a run came to so far."""

    train_loss: float | None = None
    eval_loss: float | None = None
    tokens: int = 0
    train_seconds: float = 0.0


@dataclass(slots=True)
class _Mark:
    """The last logged point, from which rates are counted."""

    tokens: int = 0
    seconds: float = 0.0


@dataclass
class SpoolCallback(TrainerCallback):
    """Reports to the spool. A loss is the mean over the labelled tokens of the steps since the last point."""

    context: JobContext
    spec: TrainingSpec
    duties: Duties | None = None  # set once the Trainer exists, before it trains
    totals: RunTotals = field(default_factory=RunTotals)
    _clock: TrainingClock = field(default_factory=TrainingClock)
    _mark: _Mark = field(default_factory=_Mark)
    _last_progress: float = 0.0

    @override
    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.context.spool.phase("train")
        self.context.spool.progress(0, state.max_steps)
        self._clock = TrainingClock()

    @override
    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        check_cancelled(self.context)

    @override
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        check_cancelled(self.context)
        self._report_progress(state)
        if self.context.stop_request is StopRequest.SAVE:
            control.should_training_stop = True
        if control.should_training_stop or self._eval_due(state) or self._save_due(state):
            control.should_log = True  # the loss is looked at before anything is saved

    @override
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs is None or "loss" not in logs:  # the Trainer's summary at its end
            return
        self._report_metrics(state, logs)
        _require_finite(logs["loss"], state.global_step)
        with self._clock.paused():
            self._evaluate_if_due(state)
            self._save_if_due(state, control)

    def _report_progress(self, state: TrainerState) -> None:
        now = time.monotonic()
        if now - self._last_progress < _PROGRESS_SECONDS and state.global_step < state.max_steps:
            return
        self._last_progress = now
        remaining = (state.max_steps - state.global_step) * self._clock.seconds / state.global_step
        self.context.spool.progress(state.global_step, state.max_steps, round(remaining, 1))

    def _report_metrics(self, state: TrainerState, logs: dict[str, float]) -> None:
        mark, now = self._mark, _Mark(self._required.tokens_seen(), self._clock.seconds)
        self._mark = now
        rate = (now.tokens - mark.tokens) / max(now.seconds - mark.seconds, 1e-9)
        self.totals.train_loss, self.totals.tokens, self.totals.train_seconds = logs["loss"], now.tokens, now.seconds
        self.context.spool.metrics(
            state.global_step,
            {
                "loss": logs["loss"],
                "learning_rate": logs["learning_rate"],
                "grad_norm": logs["grad_norm"],
                "tokens": now.tokens,
                "tokens_per_second": rate,
                "epoch": logs["epoch"],
            },
        )
        logger.info(
            "step %d/%d  loss %.4f  lr %.2e  grad norm %.3f  %.0f tokens/s",
            state.global_step, state.max_steps, logs["loss"], logs["learning_rate"], logs["grad_norm"], rate,
        )  # fmt: skip

    def _eval_due(self, state: TrainerState) -> bool:
        if self._required.evaluate is None:
            return False
        return state.global_step % self.spec.eval_steps == 0 or state.global_step >= state.max_steps

    def _save_due(self, state: TrainerState) -> bool:
        return state.global_step % self.spec.save_steps == 0 and state.global_step < state.max_steps

    def _evaluate_if_due(self, state: TrainerState) -> None:
        if not self._eval_due(state):
            return
        self.context.spool.phase("eval")
        if self.totals.eval_loss is None:  # late, so that it does not delay the first step; the base does not change
            self._evaluate(0, base=True)
        self.totals.eval_loss = self._evaluate(state.global_step, base=False)
        if state.global_step < state.max_steps:
            self.context.spool.phase("train")

    def _evaluate(self, step: int, *, base: bool) -> float | None:
        if self._required.evaluate is None:
            return None
        loss = self._required.evaluate(base)
        self.context.spool.metrics(step, {"eval_loss": loss})
        logger.info("step %d  eval loss %.4f", step, loss)
        return loss

    def _save_if_due(self, state: TrainerState, control: TrainerControl) -> None:
        if self._save_due(state) and not control.should_training_stop:  # a stop is followed by the final save
            self.context.spool.phase("save")
            self._required.save_checkpoint(state.global_step)
            self.context.spool.phase("train")

    @property
    def _required(self) -> Duties:
        if self.duties is None:
            raise RuntimeError("the callback's duties must be set before training")
        return self.duties


def check_cancelled(context: JobContext) -> None:
    """Raises: JobCancelled where the user asked to cancel."""
    if context.stop_request is StopRequest.CANCEL:
        raise JobCancelled()


def _require_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise JobError(
            f"The loss became {loss} at step {step}, so nothing more can be learned.",
            advice="Try a tenth of learning_rate, or a lower max_grad_norm, and look for odd rows in the dataset.",
        )
