"""What happens beside the steps: the run is watched and told of; eval, save and stop come where they are due."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from app.core.errors import JobCancelled
from app.core.jobs.spec import TrainingSpec
from worker.context import JobContext, StopRequest
from worker.training.adapters import base_stays
from worker.training.best import BestEval
from worker.training.duties import Duties, RunTotals
from worker.training.evals import Evals
from worker.training.guard import RunGuard, require_finite
from worker.training.report import Report

logger = logging.getLogger(__name__)


@dataclass
class SpoolCallback(TrainerCallback):
    """Reports to the spool. A loss is the mean of the steps since the last point, each that of its labelled tokens."""

    context: JobContext
    spec: TrainingSpec
    duties: Duties | None = None  # set once the Trainer exists, before it trains
    lacks_samples: bool = False  # of the checkpoint that the run goes on from: it was interrupted before they were told
    _guard: RunGuard = field(default_factory=RunGuard)
    _save_seconds: float = 0.0  # what the last checkpoint took

    def __post_init__(self) -> None:
        self._report = Report(self.context.spool)
        self._evals = Evals(self.spec, self._report)

    @property
    def totals(self) -> RunTotals:
        """What the run came to so far."""
        return self._report.totals

    @property
    def best(self) -> BestEval:
        """The best eval loss so far."""
        return self._evals.best

    @property
    def progress(self) -> dict[str, Any]:
        """What a run that goes on from here has to know, as plain values."""
        totals, best, guard = asdict(self.totals), asdict(self.best), self._guard.counters
        return {"totals": totals, "best": best, "guard": guard, "base_measured": self._evals.base_measured}

    def resume(self, progress: dict[str, Any], *, ended: bool) -> None:
        """Go on from another run's `progress`, at its last logged point; it has stopped early only if it has ended."""
        self._report.go_on(RunTotals(**progress["totals"]))
        self._guard, self._evals.best = RunGuard(**progress["guard"]), BestEval(**progress["best"])
        if not ended:
            self._evals.best.go_on()
        self._evals.base_measured = progress["base_measured"]

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        if self._required.probe is not None and state.global_step == 0:
            self._report.enter("probe", state)
            self._required.probe(given["optimizer"])
        self._report.enter("train", state)
        if not base_stays(self.spec):
            self._evals.measure_base(state, self._required, as_it_starts=True)
            self._report.enter("train", state)
        if self.lacks_samples:
            self._show_samples(state)
            self._report.enter("train", state)
        self._report.start_clock()

    @override
    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        self._guard.before_optimizer(given["model"])

    @override
    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        self._guard.after_optimizer(given["model"])

    @override
    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._heed_cancel()

    @override
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._heed_cancel()
        self._report.progress(state)
        if self.context.stop_request is StopRequest.SAVE:
            control.should_training_stop = True
        due = self._evals.due(state, self._required) or self._save_due(state) or self._sample_due(state)
        if due or control.should_training_stop or self._interrupted:
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
        self._report.point(state, logs, self._required)
        self._guard.check_loss(logs["loss"], state.global_step)
        require_finite("gradient's norm", logs["grad_norm"], state.global_step)
        if self._interrupted and self.context.in_a_hurry:
            self._leave(state)
        with self._report.pause_clock():
            better = self._evals.run_if_due(state, control, self._required) and self.best.patience is not None
            if self._interrupted and not control.should_training_stop and state.global_step < state.max_steps:
                self._leave(state, better=better)
            self._save_if_due(state, control, better=better)
            self._sample_if_asked(state, control)

    @override
    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._report.leave_steps(state)

    def _save_due(self, state: TrainerState) -> bool:
        """The last step is followed by the final save."""
        due = state.global_step % self.spec.save_steps == 0 or self.context.save_now
        return due and state.global_step < state.max_steps

    def _save_if_due(self, state: TrainerState, control: TrainerControl, *, better: bool) -> None:
        due = self._save_due(state) or (better and state.global_step < state.max_steps)
        if due and not control.should_training_stop:  # a stop is followed by the final save
            self._report.enter("save", state)
            began = time.monotonic()
            self._required.save_checkpoint(state.global_step, self.best.kept_step)
            self.context.save_now = False
            self._save_seconds = time.monotonic() - began
            self._show_samples(state)
            self._report.enter("train", state)

    def _sample_due(self, state: TrainerState) -> bool:
        """The last step is followed by the final samples."""
        return self.context.sample_now and state.global_step < state.max_steps

    def _sample_if_asked(self, state: TrainerState, control: TrainerControl) -> None:
        if self._sample_due(state) and not control.should_training_stop:
            self._report.enter("sample", state)  # by which the request is answered, whatever comes of it
            self._show_samples(state)
            self._report.enter("train", state)

    def _show_samples(self, state: TrainerState) -> None:
        """Behind the save: what is saved does not wait for them. Raises: JobCancelled."""
        self.context.sample_now = False
        if self._required.show_samples is not None:
            self._report.enter("sample", state)
            self._required.show_samples(state.global_step)

    def _leave(self, state: TrainerState, *, better: bool = False) -> NoReturn:
        """The worker stops or the job is paused: save what it goes on from, if there is time. Raises: JobCancelled.

        In a hurry nothing is saved after a step that an eval follows: the run that goes on would lack it.
        """
        behind = self._evals.due(state, self._required) or state.global_step >= state.max_steps
        if (behind and self.context.in_a_hurry) or self._save_seconds > self.context.seconds_to_stop():
            logger.info("the worker stops; there is no time to save step %d", state.global_step)
            raise JobCancelled()
        self._report.enter("save", state)
        if self._save_due(state) or better:
            self._required.save_checkpoint(state.global_step, self.best.kept_step)
        else:
            self._required.save_state(self.best.kept_step)
        logger.info("the run ends here for now, and goes on from step %d", state.global_step)
        raise JobCancelled()

    def _heed_cancel(self) -> None:
        """Between steps a worker that stops is heeded only once the step is done. Raises: JobCancelled."""
        if self.context.stop_request is StopRequest.CANCEL:
            raise JobCancelled()

    @property
    def _interrupted(self) -> bool:
        return self.context.stop_request is StopRequest.INTERRUPT

    @property
    def _required(self) -> Duties:
        if self.duties is None:
            raise RuntimeError("the callback's duties must be set before training")
        return self.duties


def check_cancelled(context: JobContext, *, heed_pause: bool = True) -> None:
    """Raises: JobCancelled where the user asked to cancel or to pause, or the worker stops."""
    interrupted = context.stop_request is StopRequest.INTERRUPT and (heed_pause or context.in_a_hurry)
    if interrupted or context.stop_request is StopRequest.CANCEL:
        raise JobCancelled()
