"""The loss at labelled positions alone is the plain loss, and its logits are few at any time."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma2Config, GraniteConfig

from tests.worker.tiny import ROWS, make_model, make_tokenizer
from worker.training import linear_loss
from worker.training.attention import attention_per_row
from worker.training.batches import Collator, FlatCollator
from worker.training.data import IGNORED_LABEL, EncodedRow, encode_row
from worker.training.losses import CHUNK_ROWS, Scoring, answer_loss, choose_scoring, chunked_loss, mean_loss

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


@pytest.mark.parametrize("scoring", list(Scoring))
@pytest.mark.parametrize("flat", [True, False])
def test_loss_and_gradient_equal_the_plain_ones_row_by_row(
    model: Any, tokenizer: Any, rows: list[EncodedRow], scoring: Scoring, flat: bool
) -> None:
    weights = [model.model.layers[0].mlp.up_proj.weight, model.lm_head.weight]
    expected = plain_loss(model, rows)
    expected_gradients = torch.autograd.grad(expected, weights)
    collate = FlatCollator() if flat else Collator(tokenizer.pad_token_id)
    with attention_per_row(model) if flat else nullcontext():
        loss = answer_loss(model, collate(rows), scoring)
        gradients = torch.autograd.grad(loss, weights)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert (gradient - expected_gradient).norm() <= 1e-5 * expected_gradient.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, CHUNK_ROWS, 2 * CHUNK_ROWS + 3])
def test_chunks_equal_the_plain_cross_entropy(count: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(count, 16, dtype=dtype, requires_grad=True)
    weight, targets = torch.randn(500, 16, dtype=dtype), torch.randint(500, (count,))
    plain = torch.nn.functional.cross_entropy((hidden @ weight.T).float(), targets, reduction="sum")
    loss = chunked_loss(hidden, weight, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=0)
    (gradient,), (expected) = torch.autograd.grad(loss, hidden), torch.autograd.grad(plain, hidden)[0]
    assert (gradient - expected).norm() <= (1e-5 if dtype == torch.float32 else 1e-2) * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2 * CHUNK_ROWS + 3])
def test_chunks_that_are_not_summed_equal_the_plain_losses_each(count: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(count, 16, dtype=dtype, requires_grad=True)
    weight, targets = torch.randn(500, 16, dtype=dtype), torch.randint(500, (count,))
    share = torch.linspace(-1, 2, count)
    plain = torch.nn.functional.cross_entropy((hidden @ weight.T).float(), targets, reduction="none")
    losses = chunked_loss(hidden, weight, targets, "none")
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, plain, rtol=1e-5, atol=1e-5)
    (gradient,), (expected,) = (torch.autograd.grad((each * share).sum(), hidden) for each in (losses, plain))
    assert (gradient - expected).norm() <= (1e-5 if dtype == torch.float32 else 1e-2) * expected.norm()


def peak_bytes(compute: Any) -> int:
    """The most that torch had allocated at once, beyond what it held before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        compute()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_memory_does_not_grow_with_the_rows_that_are_scored(
    dtype: torch.dtype, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary, count = 4000, 8 * CHUNK_ROWS
    monkeypatch.setattr(linear_loss, "TILE_ELEMENTS", CHUNK_ROWS * vocabulary)
    hidden = torch.randn(count, 16, dtype=dtype, requires_grad=True)
    weight, targets = torch.randn(vocabulary, 16, dtype=dtype), torch.randint(vocabulary, (count,))
    whole = peak_bytes(lambda: torch.nn.functional.cross_entropy((hidden @ weight.T).float(), targets).backward())
    chunked = peak_bytes(lambda: chunked_loss(hidden, weight, targets, reduction).sum().backward())
    assert whole >= 4 * count * vocabulary
    assert chunked <= 4 * 4 * CHUNK_ROWS * vocabulary


def test_the_head_scores_labelled_positions_only(model: Any, tokenizer: Any, rows: list[EncodedRow]) -> None:
    shapes = []
    model.lm_head.register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape)))
    batch = Collator(tokenizer.pad_token_id)(rows)
    labelled = int((batch["labels"] != IGNORED_LABEL).sum())
    for scoring, width in [(Scoring.AT_LABELS, model.config.vocab_size), (Scoring.CHUNKED, model.config.hidden_size)]:
        answer_loss(model, batch, scoring)
        assert shapes.pop() == (labelled, width)


def test_eval_never_holds_the_logits_of_a_batch(model: Any, rows: list[EncodedRow]) -> None:
    """Nothing as wide as the vocabulary has as many rows as the batch has tokens."""
    seen: list[tuple[int, ...]] = []

    class Shapes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = function(*args, **(kwargs or {}))
            seen.extend([tuple(output.shape)] if isinstance(output, torch.Tensor) else [])
            return output

    batch, vocabulary, scoring = FlatCollator()(rows), model.config.vocab_size, choose_scoring(model)
    with attention_per_row(model), Shapes():
        mean_loss(model, [batch], scoring)
    assert (1, batch["tokens"], model.config.hidden_size) in seen
    assert not [shape for shape in seen if shape[-1:] == (vocabulary,) and shape[-2:-1] >= (batch["tokens"],)]


def test_a_plain_head_is_scored_in_chunks_also_below_an_adapter(model: Any) -> None:
    assert choose_scoring(model) is Scoring.CHUNKED
    assert choose_scoring(get_peft_model(model, LoraConfig(target_modules=["q_proj"]))) is Scoring.CHUNKED


def test_an_adapted_head_is_asked_for_its_logits(tokenizer: Any) -> None:
    untied = make_model(tokenizer, tie_word_embeddings=False)
    adapted = get_peft_model(untied, LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM"))
    assert choose_scoring(adapted) is Scoring.AT_LABELS


def make_other(config: Any, **keywords: Any) -> Any:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    return AutoModelForCausalLM.from_config(
        config(
            vocab_size=400, num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes, **keywords
        )
    )


def test_a_head_whose_logits_are_capped_is_asked_for_them() -> None:
    assert choose_scoring(make_other(Gemma2Config)) is Scoring.AT_LABELS


def test_logits_that_are_changed_after_the_head_are_noticed(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = type(model).forward

    def shift_one(self: Any, logits_to_keep: Any = 0, **inputs: Any) -> Any:
        output = forward(self, logits_to_keep=logits_to_keep, **inputs)
        output.logits[..., 5] += 1
        return output

    monkeypatch.setattr(type(model), "forward", shift_one)
    assert choose_scoring(model) is Scoring.AT_LABELS


def test_a_factor_on_the_logits_passes_through_the_chunks(rows: list[EncodedRow]) -> None:
    scaled, batch = make_other(GraniteConfig, logits_scaling=0.1), Collator(0)(rows)
    assert choose_scoring(scaled) is Scoring.CHUNKED
    losses = [answer_loss(scaled, batch, scoring) for scoring in (Scoring.CHUNKED, Scoring.WHOLE)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)


def test_mean_loss_weighs_tokens_whatever_the_batches_are(model: Any, tokenizer: Any, rows: list[EncodedRow]) -> None:
    collate = Collator(tokenizer.pad_token_id)
    expected = plain_loss(model, rows).item() / sum(row.trained_tokens for row in rows)
    for size in (1, 2, 5):
        batches = [collate(rows[start : start + size]) for start in range(0, len(rows), size)]
        assert mean_loss(model, batches, Scoring.CHUNKED) == pytest.approx(expected, rel=1e-5)


def test_mean_loss_leaves_the_model_in_training(model: Any, tokenizer: Any, rows: list[EncodedRow]) -> None:
    model.train()
    mean_loss(model, [Collator(tokenizer.pad_token_id)(rows)], Scoring.CHUNKED)
    assert model.training
