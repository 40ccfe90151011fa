"""What happens beside the steps: metrics and progress into the spool; eval, save and stop where they are due."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from app.core.errors import JobCancelled
from app.core.jobs.spec import TrainingSpec
from worker.context import JobContext, StopRequest
from worker.training.adapters import base_stays
from worker.training.best import BestEval
from worker.training.clock import TrainingClock, seconds_left
from worker.training.duties import Duties, Mark, RunTotals
from worker.training.guard import RunGuard, require_finite

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS = 1.0


@dataclass
class SpoolCallback(TrainerCallback):
    """Reports to the spool. A loss is the mean of the steps since the last point, each that of its labelled tokens."""

    context: JobContext
    spec: TrainingSpec
    duties: Duties | None = None  # set once the Trainer exists, before it trains
    totals: RunTotals = field(default_factory=RunTotals)
    _clock: TrainingClock = field(default_factory=TrainingClock)
    _mark: Mark = field(default_factory=Mark)
    _guard: RunGuard = field(default_factory=RunGuard)
    _base_measured: bool = False
    _last_progress: float = 0.0

    def __post_init__(self) -> None:
        self.best = BestEval(self.spec.early_stopping_patience)

    @property
    def progress(self) -> dict[str, Any]:
        """What a run that goes on from here has to know, as plain values."""
        totals, best, guard = asdict(self.totals), asdict(self.best), self._guard.counters
        return {"totals": totals, "best": best, "guard": guard, "base_measured": self._base_measured}

    def resume(self, progress: dict[str, Any]) -> None:
        """Go on from another run's `progress`, at its last logged point."""
        self.totals, self.best = RunTotals(**progress["totals"]), BestEval(**progress["best"])
        self._guard, self._base_measured = RunGuard(**progress["guard"]), progress["base_measured"]
        self._mark = Mark(self.totals.tokens, self.totals.train_seconds)

    @override
    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.context.spool.phase("train")
        left = seconds_left(state.global_step, state.max_steps, self.totals.train_seconds)
        self.context.spool.progress(state.global_step, state.max_steps, left)
        if not base_stays(self.spec):
            self._measure_base(as_it_starts=True)
            self.context.spool.phase("train")
        self._clock = TrainingClock(self.totals.train_seconds)

    @override
    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        self._guard.before_optimizer(given["model"], given["optimizer"].param_groups[0]["lr"])

    @override
    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        self._guard.after_optimizer(given["model"])

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
        state.log_history.clear()  # would grow with the run; the metrics are in the spool
        if logs is None or "loss" not in logs:  # the Trainer's summary at its end
            return
        self._report_metrics(state, logs)
        self._guard.check_loss(logs["loss"], state.global_step)
        require_finite("gradient's norm", logs["grad_norm"], state.global_step)
        with self._clock.paused():
            better = self._evaluate_if_due(state, control)
            self._save_if_due(state, control, better=better and self.best.patience is not None)

    def _report_progress(self, state: TrainerState) -> None:
        now = time.monotonic()
        if now - self._last_progress < _PROGRESS_SECONDS and state.global_step < state.max_steps:
            return
        self._last_progress = now
        left = seconds_left(state.global_step, state.max_steps, self._clock.seconds)
        self.context.spool.progress(state.global_step, state.max_steps, left)

    def _report_metrics(self, state: TrainerState, logs: dict[str, float]) -> None:
        mark, now = self._mark, Mark(self._required.tokens_seen(), self._clock.seconds)
        self._mark = now
        rate = (now.tokens - mark.tokens) / max(now.seconds - mark.seconds, 1e-9)
        self.totals.train_loss, self.totals.tokens, self.totals.train_seconds = logs["loss"], now.tokens, now.seconds
        beside = self._required.take_metrics()
        self.totals.beside.update(beside)
        self.context.spool.metrics(
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

    def _eval_due(self, state: TrainerState) -> bool:
        if self._required.evaluate is None:
            return False
        return state.global_step % self.spec.eval_steps == 0 or state.global_step >= state.max_steps

    def _save_due(self, state: TrainerState) -> bool:
        return state.global_step % self.spec.save_steps == 0 and state.global_step < state.max_steps

    def _evaluate_if_due(self, state: TrainerState, control: TrainerControl) -> bool:
        """Returns whether the eval loss is the best so far; asks to stop where it has not been for too long."""
        if not self._eval_due(state):
            return False
        self._measure_base()  # late, so that it does not delay the first step; the base does not change
        values = self._evaluate(state.global_step, base=False)
        self.totals.eval_loss = values.pop("eval_loss")
        better = self.best.take(state.global_step, self.totals.eval_loss)
        if better or self.best.patience is None:  # with a patience the best weights are those that are saved
            self.totals.beside.update(values)
        self.best.stopped &= state.global_step < state.max_steps  # at the last step nothing is cut short
        if self.best.stopped:
            control.should_training_stop = True
            logger.info(
                "stopped early at step %d: %d evals without a better eval loss than %.4f at step %d",
                state.global_step, self.best.patience, self.best.loss, self.best.step,
            )  # fmt: skip
        if state.global_step < state.max_steps:
            self.context.spool.phase("train")
        return better

    def _measure_base(self, *, as_it_starts: bool = False) -> None:
        """The eval loss at step 0, once: with the adapter switched off, or of the whole model as it starts."""
        if self._base_measured or self._required.evaluate is None:
            return
        self._base_measured = True
        self._evaluate(0, base=not as_it_starts)

    def _evaluate(self, step: int, *, base: bool) -> dict[str, float]:
        evaluate = self._required.evaluate
        if evaluate is None:
            raise RuntimeError("an eval is due only where there are eval rows")
        self.context.spool.phase("eval")
        values = evaluate(base)
        self.context.spool.metrics(step, values)
        logger.info("step %d  eval loss %.4f", step, values["eval_loss"])
        require_finite("eval loss", values["eval_loss"], step)
        return values

    def _save_if_due(self, state: TrainerState, control: TrainerControl, *, better: bool) -> None:
        due = self._save_due(state) or (better and state.global_step < state.max_steps)
        if due and not control.should_training_stop:  # a stop is followed by the final save
            self.context.spool.phase("save")
            self._required.save_checkpoint(state.global_step, self.best.step if self.best.patience else None)
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
