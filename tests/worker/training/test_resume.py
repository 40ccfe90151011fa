"""A run that is interrupted and goes on equals one that is not: weights, optimizer, random states, order, curves."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from app.core.errors import JobCancelled
from tests.worker.tiny import read_records
from tests.worker.training.runs import (
    WEIGHTS,
    Interrupted,
    assert_same_end,
    curves,
    flip,
    make_job,
    next_attempt,
    run,
)
from worker.base_models.publish import hash_file
from worker.context import JobContext, StopRequest
from worker.training.run import Run
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

DAMAGED = "optimizer.pt is damaged: its SHA-256 is not that of meta.json"
RUNS = [
    pytest.param({}, 8, 10, id="in mid-epoch"),
    pytest.param({"padded": True}, 4, 5, id="padded batches"),
    pytest.param({"packing": True, "max_length": 96, "num_train_epochs": 4}, 4, 6, id="packed rows"),
    pytest.param({"method": "full", "learning_rate": 1e-3, "max_steps": 7}, 6, 7, id="full"),
    pytest.param({"method": "qlora", "optim": "adamw_8bit", "r": 64, "max_steps": 9}, 8, 9, id="QLoRA, 8-bit AdamW"),
    pytest.param({"task": "dpo", "max_steps": 9}, 8, 9, id="DPO"),
    pytest.param({"task": "dpo", "init_lora_weights": "olora", "max_steps": 7}, 6, 7, id="DPO, OLoRA"),
    pytest.param({"init_lora_weights": "pissa", "use_rslora": True}, 8, 9, id="PiSSA"),
    pytest.param({"early_stopping_patience": 2, "num_train_epochs": 3, "worse_after": 6}, 10, 11, id="stops early"),
    pytest.param({"use_dora": True, "gradient_accumulation_steps": 3, "max_steps": 7}, 6, 7, id="DoRA, max_steps"),
]


@pytest.mark.parametrize(("spec", "saved", "cut"), RUNS)
def test_interrupted_run_ends_as_the_undisturbed_one(
    spec: dict[str, Any], saved: int, cut: int, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.training.run.write_samples", lambda *_: None)  # they take most of the time
    spec = dict(spec)
    spoil_evals(spec.pop("worse_after", None), monkeypatch)
    if spec.pop("padded", False):
        monkeypatch.setattr("worker.training.batches.proves_isolation", lambda *_: False)
    undisturbed, first = (make_job(tmp_path / name, tiny_model, **spec) for name in ("undisturbed", "interrupted"))
    whole = run(undisturbed)
    run(first, cut_in_step=cut)
    second = next_attempt(first)
    rest = run(second)
    assert_same_end((first, second), rest, undisturbed, whole, saved)
    if "8bit" in spec.get("optim", ""):
        tensors = (value for state in whole.optimizer["state"].values() for value in flat(state))
        assert any(tensor.dtype == torch.uint8 for tensor in tensors), "the optimizer held nothing in 8 bits"
    if spec.get("early_stopping_patience"):
        assert (whole.summary["steps"], whole.summary["saved_step"], whole.summary["stopped_early"]) == (12, 6, True)


def flat(state: dict[str, Any]) -> list[torch.Tensor]:
    """All tensors of an optimizer's state, however deep."""
    nested = (flat(value) if isinstance(value, dict) else [value] for value in state.values())
    return [value for values in nested for value in values if isinstance(value, torch.Tensor)]


def spoil_evals(after: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the eval loss rise after a step."""
    evaluate = Run._evaluate

    def rising(run: Run, base: bool) -> dict[str, float]:
        values = evaluate(run, base)
        penalty = max(0, run._trainer.state.global_step - after) if after else 0
        return {**values, "eval_loss": values["eval_loss"] + penalty}

    monkeypatch.setattr(Run, "_evaluate", rising)


def test_run_goes_on_from_the_older_state_where_the_newest_is_damaged(
    interrupted: JobContext, cut_once: Interrupted
) -> None:
    flip(interrupted.folder / "state" / "step-6" / "optimizer.pt")
    (interrupted.folder / "state" / ".step-8.partial").mkdir()  # a process was killed while it wrote
    second = next_attempt(interrupted)
    rest = run(second)
    assert_same_end((interrupted, second), rest, cut_once.twin, cut_once.whole, 4)
    assert rest.summary["states_passed_over"] == [{"step": 6, "reason": DAMAGED}]
    told = [record.data for record in read_records(second) if record.kind == "summary"]
    assert told == [{"resumed_from_step": 4, "states_passed_over": [{"step": 6, "reason": DAMAGED}]}], "before it ends"
    receipt = json.loads((interrupted.folder / "receipt.json").read_text())
    assert (receipt["attempt"], receipt["result"]["resumed_from_step"]) == (2, 4)


def test_run_that_is_cut_at_an_epochs_end_goes_on_with_the_next(interrupted: JobContext, cut_once: Interrupted) -> None:
    second = next_attempt(interrupted)
    rest = run(second)
    assert_same_end((interrupted, second), rest, cut_once.twin, cut_once.whole, 6)


def test_run_that_goes_on_tells_its_place_at_once_and_repeats_no_eval(interrupted: JobContext) -> None:
    second = next_attempt(interrupted)
    run(second, cut_in_step=8)
    records = read_records(second)
    told_of = [(record.kind, record.step) for record in records if record.kind in ("start", "progress")]
    assert told_of[:2] == [("start", 6), ("progress", 6)]
    progress = next(record for record in records if record.kind == "progress")
    trained = json.loads((interrupted.folder / "state" / "step-6" / "progress.json").read_text())["totals"]
    assert progress.data["max_steps"] == 12
    assert progress.data["eta_seconds"] == pytest.approx(trained["train_seconds"], abs=0.06), "half of the run is left"
    assert 0 not in [record.step for record in records if record.kind == "metric"], "the base model was measured before"
    assert "tokenize" in [record.data.get("phase") for record in records]


def test_run_without_a_state_that_can_be_used_starts_anew(interrupted: JobContext, cut_once: Interrupted) -> None:
    for step in (4, 6):
        (interrupted.folder / "state" / f"step-{step}" / "meta.json").unlink()
    second = next_attempt(interrupted)
    rest = run(second)
    assert rest.summary["resumed_from_step"] is None
    assert curves(interrupted, second) == curves(cut_once.twin)
    assert hash_file(interrupted.folder / WEIGHTS) == hash_file(cut_once.twin.folder / WEIGHTS)


def test_base_samples_of_an_adapter_that_starts_elsewhere_are_told_once(tmp_path: Path, tiny_model: Path) -> None:
    job = make_job(tmp_path / "job", tiny_model, init_lora_weights="pissa", max_steps=4)
    run(job, cut_in_step=3)
    second = next_attempt(job)
    run(second)
    first, rest = ([r.step for r in read_records(each) if r.kind == "sample"] for each in (job, second))
    assert (set(first), set(rest)) == ({0, 2}, {2, 4}), "of the base once; what is told twice of a step is the same"


@pytest.mark.parametrize(("told", "again"), [([2, 4], {6}), ([2], {4, 6})])
def test_samples_that_an_interruption_cost_are_given_when_the_run_goes_on(
    tmp_path: Path, tiny_model: Path, told: list[int], again: set[int]
) -> None:
    """`told` is what reached the database: the process may end between the save and its samples."""
    job = make_job(tmp_path / "job", tiny_model, max_steps=6, sample_max_new_tokens=3)
    run(job, cut_in_step=5)
    second = next_attempt(job)
    second.payload["sampled"] = {"steps": told, "base": True}
    run(second)
    first, rest = ([r.step for r in read_records(each) if r.kind == "sample"] for each in (job, second))
    assert (set(first), set(rest)) == ({0, 2, 4}, again)


def interrupt_in(step: int, context: JobContext, monkeypatch: pytest.MonkeyPatch, *, seconds: float = 60.0) -> None:
    """Let the worker stop while the batches of a step are trained on; so many seconds are left then."""
    tick = Trainer.training_step

    def training_step(trainer: Trainer, *given: Any) -> torch.Tensor:
        if trainer.state.global_step + 1 == step:
            context.stop_request, context.stop_by = StopRequest.INTERRUPT, time.monotonic() + seconds
        return tick(trainer, *given)

    monkeypatch.setattr(Trainer, "training_step", training_step)


def test_worker_that_stops_lets_the_run_save_where_it_is(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 7 is neither one to save nor to evaluate after."""
    monkeypatch.setattr("worker.training.run.write_samples", lambda *_: None)
    twin, job = (make_job(tmp_path / name, tiny_model, logging_steps=1) for name in ("twin", "job"))
    whole = run(twin)
    with monkeypatch.context() as patched:
        interrupt_in(7, job, patched)
        with pytest.raises(JobCancelled):
            run_training(job)
    assert sorted(path.name for path in (job.folder / "state").iterdir()) == ["step-6", "step-7"]
    assert [path.name for path in sorted((job.folder / "checkpoints").iterdir())] == ["step-4", "step-6"]
    assert not (job.folder / "adapter").exists()
    second = next_attempt(job)
    assert_same_end((job, second), run(second), twin, whole, 7)


@pytest.mark.parametrize(("step", "seconds"), [(7, -1.0), (9, 60.0), (12, 60.0)])
def test_worker_that_stops_is_not_kept_waiting(
    step: int, seconds: float, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without time, before an eval, and after the last step the run ends at once, and goes on from the last state."""
    job = make_job(tmp_path / "job", tiny_model)
    interrupt_in(step, job, monkeypatch, seconds=seconds)
    with pytest.raises(JobCancelled):
        run_training(job)
    assert max(int(path.name.removeprefix("step-")) for path in (job.folder / "state").iterdir()) == (step - 1) // 2 * 2
    assert not (job.folder / "adapter").exists()


def test_worker_that_stops_after_a_step_to_save_after_gets_checkpoint_and_state(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path / "job", tiny_model)
    interrupt_in(4, job, monkeypatch)
    with pytest.raises(JobCancelled):
        run_training(job)
    for kept in ("checkpoints", "state"):
        assert sorted(path.name for path in (job.folder / kept).iterdir()) == ["step-2", "step-4"]
