"""Runs that learn nothing are stopped, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

from app.core.errors import DatasetFormatError, JobError
from worker.context import JobContext
from worker.training import train, trainer
from worker.training.adapters import WEIGHTS
from worker.training.guard import RunGuard
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

MakeJob = Callable[..., JobContext]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("warmup", [0, 0.5])
def test_every_target_learns_from_the_first_step_on(
    checkpointing: bool, warmup: float, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lora_B leaves zero in all 14 targets of the two layers, in a warm-up's first step too."""
    moved: list[list[bool]] = []
    check = RunGuard.after_optimizer

    def note(guard: RunGuard, model: Any) -> None:
        moved.append([bool(p.detach().any()) for name, p in model.named_parameters() if ".lora_B." in name])
        check(guard, model)

    monkeypatch.setattr(RunGuard, "after_optimizer", note)
    run_training(make_job(max_steps=2, warmup_ratio=warmup, gradient_checkpointing=checkpointing))
    assert moved == [[True] * 14, [True] * 14]


def test_target_without_a_gradient_stops_the_run(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    add = train.add_lora  # type: ignore[attr-defined]

    def add_and_cut_off(*arguments: Any) -> Any:
        model = add(*arguments)
        layer = model.base_model.model.model.layers[0]
        forward = layer.forward
        layer.forward = lambda *given, **named: forward(*given, **named).detach()
        return model

    monkeypatch.setattr(train, "add_lora", add_and_cut_off)
    with pytest.raises(JobError, match=r"14 trainable tensors received no gradient.*layers\.0.* and 11 more") as caught:
        run_training(make_job(max_steps=3))
    assert "gradient_checkpointing" in str(caught.value.advice)


def test_target_whose_gradient_is_zero_stops_the_run(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    add = train.add_lora  # type: ignore[attr-defined]

    def add_dead_branch(*arguments: Any) -> Any:
        model = add(*arguments)
        model.base_model.model.model.layers[1].mlp.down_proj.lora_A["default"].weight.data.zero_()
        return model

    monkeypatch.setattr(train, "add_lora", add_dead_branch)
    with pytest.raises(JobError, match=r"1 trainable tensors received a gradient of zeros.*layers\.1\.mlp\.down_proj"):
        run_training(make_job(max_steps=3))


def test_adapter_that_the_optimizer_does_not_move_stops_the_run(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_weights(self: Trainer, *_: Any) -> Any:
        self.optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        return self.optimizer

    monkeypatch.setattr(Trainer, "create_optimizer", other_weights)
    with pytest.raises(JobError, match="14 trainable tensors stayed zero after an optimizer step"):
        run_training(make_job(max_steps=3, warmup_ratio=0))


def test_loss_of_zero_three_times_in_a_row_stops_the_run(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = trainer.AnswerTrainer.compute_loss  # type: ignore[attr-defined]
    monkeypatch.setattr(trainer.AnswerTrainer, "compute_loss", lambda *given, **named: loss(*given, **named) * 0)  # type: ignore[attr-defined]
    monkeypatch.setattr(RunGuard, "before_optimizer", lambda *_: None)
    monkeypatch.setattr(RunGuard, "after_optimizer", lambda *_: None)
    with pytest.raises(JobError, match="exactly 0 at 3 logged steps in a row, up to step 3"):
        run_training(make_job(max_steps=6))


def test_loss_that_is_zero_now_and_then_is_none_of_it() -> None:
    guard = RunGuard()
    for step, loss in enumerate([0.0, 0.0, 0.1, 0.0, 0.0, 0.2], start=1):
        guard.check_loss(loss, step)
    guard.check_loss(0.0, 7)
    guard.check_loss(0.0, 8)
    with pytest.raises(JobError, match="up to step 9"):
        guard.check_loss(0.0, 9)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_loss_that_is_no_number_is_refused(loss: float) -> None:
    with pytest.raises(JobError, match=f"became {loss} at step 4"):
        RunGuard().check_loss(loss, 4)


@pytest.mark.parametrize("eval_fraction", [0, 0.1])
def test_gradient_that_is_no_number_in_the_last_step_is_not_saved(
    eval_fraction: float, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is that of before the step, and finite."""
    step = Trainer.training_step

    def spoil(self: Trainer, model: Any, *given: Any) -> torch.Tensor:
        loss = step(self, model, *given)
        if self.state.global_step == 2:
            next(p for p in model.parameters() if p.grad is not None).grad[0] = float("nan")
        return loss

    monkeypatch.setattr(Trainer, "training_step", spoil)
    context = make_job(max_steps=3, save_steps=3, eval_fraction=eval_fraction)
    with pytest.raises(JobError, match="The gradient's norm became nan at step 3"):
        run_training(context)
    assert not (context.folder / "adapter").exists()


def test_eval_loss_that_is_no_number_stops_the_run(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, float("nan")])
    monkeypatch.setattr(trainer, "mean_loss", lambda *_: next(losses))
    with pytest.raises(JobError, match="The eval loss became nan at step 2"):
        run_training(make_job(max_steps=4, eval_steps=2))


@pytest.mark.parametrize("schedule", ["cosine", "constant_with_warmup"])
def test_run_of_a_single_step_learns(schedule: str, make_job: MakeJob) -> None:
    """A warm-up of one step is all of it."""
    context = make_job(max_steps=1, warmup_ratio=0.03, lr_scheduler_type=schedule)
    run_training(context)
    weights = load_file(context.folder / "adapter" / WEIGHTS)
    assert all(tensor.any() for name, tensor in weights.items() if ".lora_B." in name)


def test_dataset_without_a_token_to_learn_fails_at_once_naming_the_rows(make_job: MakeJob) -> None:
    with pytest.raises(DatasetFormatError) as caught:
        run_training(make_job(max_length=12))
    (fault,) = caught.value.faults
    assert fault.field == "max_length"
    assert "rows 1 to 24" in fault.message
