"""Training ends early where the eval loss gets no better, and keeps the best."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.worker.tiny import read_records
from worker.base_models.publish import hash_file
from worker.context import JobContext
from worker.training import trainer
from worker.training.adapters import WEIGHTS
from worker.training.best import BestEval
from worker.training.resume import StateStore
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

MakeJob = Callable[..., JobContext]


def follow(losses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give these as the eval losses: at step 0, then at each eval."""
    given = iter(losses)
    monkeypatch.setattr(trainer, "mean_loss", lambda *_: next(given))


def test_training_stops_and_the_best_checkpoint_outlives_its_turn(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    follow([3.0, 2.5, 2.0, 2.1, 2.0, 2.2], monkeypatch)
    context = make_job(max_steps=30, eval_steps=2, save_steps=3, save_total_limit=1, early_stopping_patience=3)
    with caplog.at_level(logging.INFO):
        summary = run_training(context)
    assert summary["steps"] == 10
    assert (summary["best_eval_loss"], summary["best_eval_step"], summary["stopped_early"]) == (2.0, 4, True)
    assert (summary["saved_step"], summary["eval_loss"]) == (4, 2.0)
    assert "stopped early at step 10: 3 evals without a better eval loss than 2.0000 at step 4" in caplog.text
    assert sorted(path.name for path in (context.folder / "checkpoints").iterdir()) == ["step-4", "step-9"]
    saved, best = (context.folder / name for name in ("adapter", "checkpoints/step-4"))
    assert hash_file(saved / WEIGHTS) == hash_file(best / WEIGHTS)
    assert json.loads((saved / "meta.json").read_text())["step"] == 4
    assert "Trained for 4 steps" in (saved / "README.md").read_text()
    assert "the best of 10 steps" in (saved / "README.md").read_text()
    tuned = [record for record in read_records(context) if record.kind == "sample" and record.data["model"] == "tuned"]
    assert tuned[-1].step == 4
    evals = [record.step for record in read_records(context) if "eval_loss" in record.data]
    assert evals == [0, 2, 4, 6, 8, 10]


def test_the_last_weights_are_saved_where_the_best_are_damaged(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    follow([3.0, 2.5, 2.6, 2.7], monkeypatch)
    context = make_job(max_steps=9, eval_steps=1, save_steps=50, early_stopping_patience=2)
    take_best = StateStore.take_best

    def take_damaged(states: StateStore, *rest: Any) -> int:
        (context.folder / "state" / "step-1" / "trainable.safetensors").unlink()
        return take_best(states, *rest)

    monkeypatch.setattr(StateStore, "take_best", take_damaged)
    summary = run_training(context)
    assert (summary["steps"], summary["saved_step"], summary["best_eval_step"], summary["eval_loss"]) == (3, 3, 1, 2.7)
    assert "the best weights, of step 1, cannot be had: trainable.safetensors is missing" in caplog.text
    assert "the best of" not in (context.folder / "adapter" / "README.md").read_text()


def test_training_that_gets_better_runs_to_its_end(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    follow([3.0, 2.5, 2.6, 2.4], monkeypatch)
    summary = run_training(make_job(max_steps=6, eval_steps=2, save_steps=50, early_stopping_patience=2))
    assert (summary["steps"], summary["stopped_early"]) == (6, False)
    assert (summary["best_eval_step"], summary["saved_step"]) == (6, 6)


def test_patience_that_runs_out_with_the_last_step_stops_nothing(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow([3.0, 2.5, 2.6], monkeypatch)
    summary = run_training(make_job(max_steps=4, eval_steps=2, save_steps=50, early_stopping_patience=1))
    assert (summary["steps"], summary["saved_step"], summary["stopped_early"]) == (4, 2, False)


def test_without_a_patience_nothing_changes(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    follow([3.0, 2.0, 2.1, 2.2, 2.3], monkeypatch)
    context = make_job(max_steps=8, eval_steps=2, save_steps=50)
    summary = run_training(context)
    assert summary["steps"] == 8
    assert (summary["saved_step"], summary["eval_loss"]) == (8, 2.3)
    assert "best_eval_step" not in summary
    assert not (context.folder / "checkpoints").exists()


def test_a_tie_is_no_improvement() -> None:
    best = BestEval(patience=2)
    assert [best.take(step, loss) for step, loss in enumerate([1.0, 1.0, 0.9, 0.9, 0.9])] == [
        *(True, False, True, False, False),
    ]
    assert (best.step, best.stopped) == (2, True)
