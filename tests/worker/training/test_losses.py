"""The loss at labelled positions alone is the plain loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.worker.tiny import ROWS, make_model, make_tokenizer
from worker.training.batches import Collator
from worker.training.data import IGNORED_LABEL, EncodedRow, encode_row
from worker.training.losses import answer_loss, mean_loss, takes_positions

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture
def model(tokenizer: Any) -> Any:
    return make_model(tokenizer)


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> list[EncodedRow]:
    long = [{"role": "user", "content": "Box 1?"}, {"role": "assistant", "content": "Box 1 is red. " * 4}]
    return [encode_row(tokenizer, messages, 100) for messages in [*ROWS[:4], long]]


def plain_loss(model: Any, rows: list[EncodedRow]) -> torch.Tensor:
    """transformers' own loss, row by row without any padding, summed over the labelled tokens."""
    losses = []
    for row in rows:
        output = model(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels]))
        losses.append(output.loss * row.trained_tokens)
    return torch.stack(losses).sum()


@pytest.mark.parametrize("at_labels", [True, False])
def test_loss_and_gradient_equal_the_plain_ones_without_padding(
    model: Any, tokenizer: Any, rows: list[EncodedRow], at_labels: bool
) -> None:
    weight = model.model.layers[0].mlp.up_proj.weight
    expected = plain_loss(model, rows)
    (expected_gradient,) = torch.autograd.grad(expected, weight)
    batch = Collator(tokenizer.pad_token_id)(rows)
    loss = answer_loss(model, batch["input_ids"], batch["labels"], at_labels=at_labels)
    (gradient,) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_logits_are_made_at_labelled_positions_only(model: Any, tokenizer: Any, rows: list[EncodedRow]) -> None:
    shapes = []
    model.lm_head.register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape)))
    batch = Collator(tokenizer.pad_token_id)(rows)
    answer_loss(model, batch["input_ids"], batch["labels"], at_labels=takes_positions(model))
    assert shapes == [(int((batch["labels"] != IGNORED_LABEL).sum()), model.config.vocab_size)]


def test_mean_loss_weighs_tokens_whatever_the_batches_are(model: Any, tokenizer: Any, rows: list[EncodedRow]) -> None:
    collate = Collator(tokenizer.pad_token_id)
    expected = plain_loss(model, rows).item() / sum(row.trained_tokens for row in rows)
    for size in (1, 2, 5):
        batches = [collate(rows[start : start + size]) for start in range(0, len(rows), size)]
        assert mean_loss(model, batches, at_labels=True) == pytest.approx(expected, rel=1e-5)


def test_mean_loss_leaves_the_model_in_training(model: Any, tokenizer: Any, rows: list[EncodedRow]) -> None:
    model.train()
    mean_loss(model, [Collator(tokenizer.pad_token_id)(rows)], at_labels=True)
    assert model.training
