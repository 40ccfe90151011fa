"""A run that is paused ends where it is, and one that is made longer goes on from its end: as if neither had been."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer

from app.core.errors import JobCancelled
from tests.worker.training.runs import WEIGHTS, assert_same_end, curves, make_job, next_attempt, run, same
from worker.base_models.publish import hash_file
from worker.context import JobContext, StopRequest
from worker.training.best import BestEval
from worker.training.run import Run
from worker.training.train import run_training

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def _no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.training.run.write_samples", lambda *_: None)


def pause_when(owner: type, name: str, step: int, job: JobContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for a pause as soon as the method is called for the step."""
    method = getattr(owner, name)

    def watched(self: Any, *given: Any, **named: Any) -> Any:
        trainer = self if isinstance(self, Trainer) else self._trainer
        if trainer.state.global_step + (owner is Trainer) == step:
            job.stop_request = StopRequest.INTERRUPT  # without a time by which to stop
        return method(self, *given, **named)

    monkeypatch.setattr(owner, name, watched)


@pytest.mark.parametrize(("owner", "name"), [(Trainer, "training_step"), (Run, "_evaluate")])
def test_a_paused_run_finishes_step_and_eval_and_goes_on_exactly(
    owner: type, name: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After step 9 comes an eval, and nothing is due to be saved; the pause is asked for in step or eval."""
    twin, job = (make_job(tmp_path / each, tiny_model, logging_steps=1) for each in ("twin", "job"))
    whole = run(twin)
    with monkeypatch.context() as patched:
        pause_when(owner, name, 9, job, patched)
        with pytest.raises(JobCancelled):
            run_training(job)
    assert sorted(path.name for path in (job.folder / "state").iterdir()) == ["step-8", "step-9"]
    second = next_attempt(job)
    assert_same_end((job, second), run(second), twin, whole, 9)


def test_a_run_that_is_paused_in_its_last_step_just_ends(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path / "job", tiny_model)
    pause_when(Trainer, "training_step", 12, job, monkeypatch)
    assert run_training(job)["steps"] == 12
    assert (job.folder / WEIGHTS).exists()


def test_a_longer_run_ends_as_one_that_was_as_long_from_the_start(tmp_path: Path, tiny_model: Path) -> None:
    """With a learning rate that does not depend on the length. Epochs end after steps 6, 12 and 18."""
    spec = {"lr_scheduler_type": "constant", "warmup_ratio": 0.0, "logging_steps": 1}
    job, twin = make_job(tmp_path / "job", tiny_model, **spec), make_job(tmp_path / "twin", tiny_model, **spec)
    assert run(job).summary["steps"] == 12
    longer = next_attempt(job)
    payload = {**job.payload, "spec": {**job.payload["spec"], "max_steps": 20}, "start_from": 12, "extended_at": [12]}
    longer.payload, longer.assignment = payload, replace(longer.assignment, payload=payload)
    twin.payload["spec"]["max_steps"] = 20
    rest, whole = run(longer), run(twin)
    assert rest.summary["extended_at"] == [12]
    assert (rest.summary["steps"], rest.summary["resumed_from_step"]) == (20, 12)
    for part in ("weights", "optimizer", "random", "tokens"):
        assert same(getattr(rest, part), getattr(whole, part)), part
    assert curves(job, longer) == curves(twin)
    assert hash_file(job.folder / WEIGHTS) == hash_file(twin.folder / WEIGHTS)


def test_a_run_that_had_stopped_early_has_its_whole_patience_again() -> None:
    best = BestEval(2)
    for step, loss in enumerate([1.0, 2.0, 2.0]):
        best.take(step, loss)
    assert best.stopped
    best.go_on()
    best.take(3, 2.0)
    assert not best.stopped
    best.take(4, 2.0)
    assert best.stopped
