"""Runs that train every weight are stopped where a whole layer learns nothing, and only there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM, Trainer

from app.core.errors import JobError
from tests.worker.tiny import make_model, make_tokenizer
from worker.context import JobContext
from worker.training import train
from worker.training.guard import RunGuard
from worker.training.layers import LayerWatch
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

MakeJob = Callable[..., JobContext]


def train_one_step(model: Any, learning_rate: float = 1e-3) -> RunGuard:
    """As the Trainer does: backward, guard, optimizer, guard."""
    guard, ids = RunGuard(), torch.arange(3, 30).unsqueeze(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    model(input_ids=ids, labels=ids).loss.backward()
    guard.before_optimizer(model)
    optimizer.step()
    guard.after_optimizer(model)
    return guard


def gpt2() -> Any:
    """With learned positions, of which a batch uses the first few rows."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=0))


def mixtral() -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return MixtralForCausalLM(MixtralConfig(vocab_size=64, num_key_value_heads=2, num_local_experts=8, **sizes))


@pytest.mark.parametrize("make", [gpt2, mixtral, lambda: make_model(make_tokenizer())])
def test_a_model_that_learns_passes(make: Callable[[], Any]) -> None:
    model = make()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train_one_step(model)
    moved = {name for name, parameter in model.named_parameters() if not parameter.equal(before[name])}
    assert any(".0." in name for name in moved)
    assert any(".1." in name for name in moved)


def test_a_tensor_that_no_token_reaches_is_named_and_no_reason_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    model = gpt2()
    model.register_parameter("for_images", torch.nn.Parameter(torch.ones(3)))
    with caplog.at_level(logging.WARNING):
        train_one_step(model)
    assert "1 tensors received no gradient in the first step: for_images" in caplog.text


def cut_off_first_layer(model: Any) -> Any:
    layer = model.model.layers[0]
    forward = layer.forward
    layer.forward = lambda *given, **named: forward(*given, **named).detach()
    return model


def test_layer_without_a_gradient_stops_the_run(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    load = train.load_whole_model  # type: ignore[attr-defined]
    monkeypatch.setattr(train, "load_whole_model", lambda *given: cut_off_first_layer(load(*given)))
    with pytest.raises(
        JobError, match=r"1 of 2 layers received no gradient, so they cannot learn: layers\.0\."
    ) as caught:
        run_training(make_job(method="full", learning_rate=1e-3, max_steps=2, eval_fraction=0))
    assert "gradient_checkpointing" in str(caught.value.advice)


def test_weights_that_the_optimizer_does_not_hold_stop_the_run(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_weights(trainer: Trainer, *_: Any) -> Any:
        trainer.optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        return trainer.optimizer

    monkeypatch.setattr(Trainer, "create_optimizer", other_weights)
    with pytest.raises(
        JobError, match=r"2 of 2 layers stayed as they were after an optimizer step.*layers\.0, layers\.1"
    ):
        run_training(make_job(method="full", learning_rate=1e-3, max_steps=2, warmup_ratio=0, eval_fraction=0))


def test_update_below_the_weights_precision_stops_the_run() -> None:
    with pytest.raises(JobError, match="2 of 2 layers stayed as they were"):
        train_one_step(make_model(make_tokenizer()), learning_rate=1e-20)


def test_what_was_kept_for_the_comparison_is_let_go() -> None:
    model = gpt2()
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    watch = LayerWatch(model)
    assert watch.without_gradient() == []
    assert watch.unmoved() == ["h.0", "h.1"]
    assert watch._before == {}
