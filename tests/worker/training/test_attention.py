"""Rows of a flattened batch are kept apart, by attention and by positions, or they are not flattened."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, MistralConfig, Qwen3Config

from tests.worker.tiny import make_model, make_tokenizer
from worker.training import attention
from worker.training.attention import CannotFlatten, attention_per_row, measure_isolation, proves_isolation
from worker.training.batches import FlatCollator
from worker.training.data import EncodedRow

pytestmark = pytest.mark.model

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
ROWS = [EncodedRow(list(range(start, start + n)), list(range(start, start + n)), n) for start, n in [(3, 17), (40, 9)]]


@pytest.fixture
def model() -> Any:
    return make_model(make_tokenizer())


def logits_alone(model: Any) -> torch.Tensor:
    return torch.cat([model(input_ids=torch.tensor([row.input_ids])).logits[0] for row in ROWS])


def logits_flattened(model: Any, **changes: Any) -> torch.Tensor:
    batch = {**FlatCollator()(ROWS), **changes}
    names = ("input_ids", "position_ids", "row_lengths")
    with attention_per_row(model):
        return model(**{name: batch[name] for name in names}, use_cache=False).logits[0]


def test_flattened_rows_get_the_logits_they_get_alone(model: Any) -> None:
    torch.testing.assert_close(logits_flattened(model), logits_alone(model), atol=1e-5, rtol=1e-5)


def test_without_the_split_or_the_positions_the_second_row_differs(model: Any) -> None:
    alone, tokens = logits_alone(model), sum(len(row.input_ids) for row in ROWS)
    unsplit = logits_flattened(model, row_lengths=(tokens,))
    unplaced = logits_flattened(model, position_ids=torch.arange(tokens)[None].flip(1))
    second = len(ROWS[0].input_ids)
    assert (unsplit - alone)[second:].abs().max() > 1e-2
    assert (unplaced - alone)[second:].abs().max() > 1e-3


def test_no_mask_is_built_and_the_model_is_as_before_afterwards(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = []
    plain = attention.sdpa_attention_forward

    def record(module: Any, q: Any, k: Any, v: Any, mask: Any, **keywords: Any) -> Any:
        masks.append((mask, q.shape[2]))
        return plain(module, q, k, v, mask, **keywords)

    monkeypatch.setattr(attention, "sdpa_attention_forward", record)
    logits_flattened(model)
    assert masks == [(None, 17), (None, 9)] * model.config.num_hidden_layers
    assert model.config._attn_implementation == "sdpa"


def test_proof_holds_and_could_have_failed(model: Any) -> None:
    proof = measure_isolation(model)
    assert proof.holds
    assert proof.difference < 1e-5 < 1e-2 < proof.leak


def test_proof_fails_where_layers_are_not_kept_apart(
    model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = attention.attend_per_row

    def leak(*arguments: Any, row_lengths: Any = None, **keywords: Any) -> Any:
        return plain(*arguments, row_lengths=(sum(row_lengths),), **keywords)

    attention.AttentionInterface.register(attention.PER_ROW, leak)
    try:
        assert not proves_isolation(model, 64)
    finally:
        attention.AttentionInterface.register(attention.PER_ROW, plain)
    assert "padded: rows could not be proven apart" in caplog.text


def test_proof_fails_where_positions_run_on(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shift alone changes nothing in rotary embeddings, so the positions are made to spread as well."""
    forward = model.model.rotary_emb.forward

    def ignore_positions(x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        return forward(x, torch.arange(x.shape[1])[None] ** 2)

    monkeypatch.setattr(model.model.rotary_emb, "forward", ignore_positions)
    assert not measure_isolation(model).holds


def test_a_model_without_replaceable_attention_is_padded(caplog: pytest.LogCaptureFixture) -> None:
    bloom = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=100, hidden_size=32, n_layer=1, n_head=2))
    assert not proves_isolation(bloom, 64)
    assert "padded: the model's rows cannot be flattened (it runs with eager attention" in caplog.text


@pytest.mark.parametrize(("longest", "flat"), [(32, True), (33, False)])
def test_a_sliding_window_shorter_than_the_longest_row_is_padded(longest: int, flat: bool) -> None:
    mistral = AutoModelForCausalLM.from_config(MistralConfig(**SIZES, sliding_window=32))
    assert proves_isolation(mistral, longest) is flat


def test_grouped_heads_and_normalised_queries_are_honoured() -> None:
    qwen = AutoModelForCausalLM.from_config(Qwen3Config(**SIZES))
    torch.testing.assert_close(logits_flattened(qwen), logits_alone(qwen), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"softcap": 50.0}, "softcap"),
        ({"s_aux": torch.ones(4)}, "s_aux"),
        ({"is_causal": False}, "not causal"),
        ({"sliding_window": 4}, "4 tokens only and a row has 5"),
    ],
)
def test_attention_of_another_kind_is_declined(model: Any, keywords: dict[str, Any], reason: str) -> None:
    q = torch.randn(1, 4, 5, 8)
    layer = model.model.layers[0].self_attn
    with pytest.raises(CannotFlatten, match=reason):
        attention.attend_per_row(layer, q, q, q, None, row_lengths=(5,), **keywords)


def test_layers_that_are_not_told_where_rows_end_are_declined(model: Any) -> None:
    q = torch.randn(1, 4, 5, 8)
    with pytest.raises(CannotFlatten, match="not told where the rows end"):
        attention.attend_per_row(model.model.layers[0].self_attn, q, q, q, None)


def test_the_proof_leaves_the_model_in_training(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model.train()
    assert proves_isolation(model, 64)
    assert model.training
    assert "batches are flattened: rows proven apart" in caplog.text
