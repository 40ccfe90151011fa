"""Evaluation of a run: when it is due, of the base model once, and which one was the best."""

from __future__ import annotations

import logging

from transformers import TrainerControl, TrainerState

from app.core.jobs.spec import TrainingSpec
from worker.training.best import BestEval
from worker.training.duties import Duties
from worker.training.guard import require_finite
from worker.training.report import Report

logger = logging.getLogger(__name__)


class Evals:
    """Measures the eval rows in time, and asks to stop where the loss has not got better for too long."""

    def __init__(self, spec: TrainingSpec, report: Report) -> None:
        self.best = BestEval(spec.early_stopping_patience)
        self.base_measured = False
        self._spec = spec
        self._report = report

    def due(self, state: TrainerState, duties: Duties) -> bool:
        """Every `eval_steps` steps, and after the last one."""
        if duties.evaluate is None:
            return False
        return state.global_step % self._spec.eval_steps == 0 or state.global_step >= state.max_steps

    def run_if_due(self, state: TrainerState, control: TrainerControl, duties: Duties) -> bool:
        """Returns whether the eval loss is the best so far; asks to stop where it has not been for too long."""
        if not self.due(state, duties):
            return False
        self.measure_base(state, duties)  # late, so that it does not delay the first step; the base does not change
        values = self._evaluate(state, duties, state.global_step, base=False)
        totals = self._report.totals
        totals.eval_loss = values.pop("eval_loss")
        better = self.best.take(state.global_step, totals.eval_loss)
        if better or self.best.patience is None:  # with a patience the best weights are those that are saved
            totals.beside.update(values)
        self.best.stopped &= state.global_step < state.max_steps  # at the last step nothing is cut short
        if self.best.stopped:
            control.should_training_stop = True
            logger.info(
                "stopped early at step %d: %d evals without a better eval loss than %.4f at step %d",
                state.global_step, self.best.patience, self.best.loss, self.best.step,
            )  # fmt: skip
        if state.global_step < state.max_steps:
            self._report.enter("train", state)
        return better

    def measure_base(self, state: TrainerState, duties: Duties, *, as_it_starts: bool = False) -> None:
        """The eval loss at step 0, once: with the adapter switched off, or of the whole model as it starts."""
        if self.base_measured or duties.evaluate is None:
            return
        self.base_measured = True
        self._evaluate(state, duties, 0, base=not as_it_starts)

    def _evaluate(self, state: TrainerState, duties: Duties, step: int, *, base: bool) -> dict[str, float]:
        if duties.evaluate is None:
            raise RuntimeError("an eval is due only where there are eval rows")
        self._report.enter("eval", state)
        values = duties.evaluate(base)
        self._report.evaluated(step, values)
        require_finite("eval loss", values["eval_loss"], step)
        return values
