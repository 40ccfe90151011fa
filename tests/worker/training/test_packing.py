"""Packs: filled well, the same each time, and their examples kept apart."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from app.core.errors import InvalidInput
from tests.worker.tiny import ROWS, make_context, make_model, make_tokenizer, read_records, train_payload, write_rows
from worker.context import JobContext
from worker.training.attention import attention_per_row
from worker.training.batches import FlatCollator
from worker.training.data import IGNORED_LABEL, EncodedRow, encode_row
from worker.training.losses import Scoring, answer_loss
from worker.training.pack_plan import pack
from worker.training.packing import PackCollator, Packs, pack_rows
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

CAPACITY = 100


def make_packs(rows: list[EncodedRow], capacity: int = CAPACITY) -> Packs:
    return Packs(rows, [len(row.input_ids) for row in rows], capacity)


def encoded() -> list[EncodedRow]:
    tokenizer = make_tokenizer()
    return [encode_row(tokenizer, messages, 1000) for messages in ROWS]


def by_definition(lengths: Sequence[int], capacity: int) -> list[int]:
    """The free places of each pack, by a search through all packs for the fullest that takes the row."""
    left: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [space for space in left if space >= length]
        if fitting:
            left[left.index(min(fitting))] -= length
        else:
            left.append(capacity - length)
    return sorted(left)


@pytest.mark.parametrize("seed", range(20))
def test_rows_go_where_best_fit_decreasing_puts_them(seed: int) -> None:
    source = random.Random(seed)
    capacity = source.choice([7, 8, 100, 513])
    lengths = [source.randint(1, capacity) for _ in range(source.randint(1, 200))]
    filled = Counter[int]()
    for length, number in zip(lengths, pack(lengths, capacity), strict=True):
        filled[number] += length
    assert sorted(capacity - size for size in filled.values()) == by_definition(lengths, capacity)
    assert sorted(filled) == list(range(len(filled)))


def test_row_that_fits_in_no_pack_is_refused() -> None:
    with pytest.raises(ValueError, match="101 tokens fits in no pack of 100"):
        pack([5, 101], 100)


def test_every_row_is_in_one_pack_and_figures_are_those_of_the_packs() -> None:
    rows = encoded()
    packs = make_packs(rows)
    packed = [row.input_ids for pack in packs for row in pack]
    assert sorted(packed) == sorted(row.input_ids for row in rows)
    assert packs.lengths == [sum(len(row.input_ids) for row in pack) for pack in packs]
    assert max(packs.lengths) <= CAPACITY
    tokens = sum(packs.lengths)
    assert packs.summary() == {
        "packs": len(packs),
        "rows_per_pack": round(len(rows) / len(packs), 2),
        "pack_density": round(tokens / (len(packs) * CAPACITY), 4),
    }
    assert list(packs[1:3]) == [packs[1], packs[2]]
    assert packs[-1] == packs[len(packs) - 1]


def test_batch_of_packs_restarts_positions_and_labels_no_first_token() -> None:
    rows = [EncodedRow([n] * n, [n] * n, n) for n in (60, 40, 30, 20)]
    packs = make_packs(rows)
    assert [len(pack) for pack in packs] == [2, 2]
    batch = PackCollator()([packs[0], packs[1]])
    assert batch["row_lengths"] == (60, 40, 30, 20)
    assert batch["position_ids"][0].tolist() == [i for n in (60, 40, 30, 20) for i in range(n)]
    starts = [0, 60, 100, 130]
    assert [i for i, label in enumerate(batch["labels"][0].tolist()) if label == IGNORED_LABEL] == starts
    assert batch["tokens"] == 150


def logits(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    inputs = {name: batch[name] for name in ("input_ids", "position_ids", "row_lengths")}
    with attention_per_row(model), torch.inference_mode():
        return model(**inputs, use_cache=False).logits[0]


def test_packed_logits_equal_those_alone_and_a_leak_would_be_seen() -> None:
    model = make_model(make_tokenizer()).eval()
    batch = PackCollator()(make_packs(encoded(), 512)[:2])
    rows = torch.split(batch["input_ids"][0], list(batch["row_lengths"]))
    with torch.inference_mode():
        alone = torch.cat([model(input_ids=row[None], use_cache=False).logits[0] for row in rows])
    scale = float(alone.abs().max())
    packed = logits(model, batch)
    leaking = logits(model, {**batch, "row_lengths": (sum(batch["row_lengths"]),)})
    running_on = logits(model, {**batch, "position_ids": torch.arange(len(alone))[None] * 3})
    assert len(rows) > 10
    assert float((packed - alone).abs().max()) <= 1e-5 * scale
    assert float((leaking - alone).abs().max()) > 1e-2 * scale
    assert float((running_on - alone).abs().max()) > 1e-3 * scale


def test_packed_loss_and_gradients_are_those_of_the_rows() -> None:
    rows, model = encoded(), make_model(make_tokenizer())

    def measure(batches: list[dict[str, Any]]) -> tuple[float, torch.Tensor]:
        model.zero_grad()
        with attention_per_row(model):
            losses = [answer_loss(model, batch, Scoring.CHUNKED) for batch in batches]
            loss = torch.stack(losses).sum()
            loss.backward()
        return float(loss.detach()), torch.cat([p.grad.flatten() for p in model.parameters()])

    packs = make_packs(rows, 256)
    packed, gradients = measure([PackCollator()(packs[:])])
    alone, gradients_alone = measure([FlatCollator()([row]) for row in rows])
    assert packed == pytest.approx(alone, rel=1e-5)
    torch.testing.assert_close(gradients, gradients_alone, rtol=1e-4, atol=1e-4)


def test_model_that_cannot_keep_examples_apart_refuses_packing() -> None:
    config = MistralConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=8,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(InvalidInput, match="sliding_window = 8 is less than the longest row, 64 tokens") as caught:
        pack_rows(model, [], 64)  # type: ignore[arg-type]
    assert caught.value.faults[0].field == "packing"


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Callable[..., tuple[dict[str, Any], JobContext]]:
    def run(**spec: Any) -> tuple[dict[str, Any], JobContext]:
        payload = train_payload(tiny_model, write_rows(tmp_path / "rows.jsonl"), packing=True, **spec)
        context = make_context(tmp_path / "job", "train", payload)
        return run_training(context), context

    return run


def test_packed_job_learns_counts_its_packs_and_measures_eval(run: Callable[..., Any]) -> None:
    summary, context = run(
        max_steps=None, num_train_epochs=12, max_length=256, per_device_train_batch_size=2, eval_steps=100, r=16
    )
    metrics = [r for r in read_records(context) if r.kind == "metric"]
    loss = [r.data["loss"] for r in metrics if "loss" in r.data]
    eval_loss = [r.data["eval_loss"] for r in metrics if "eval_loss" in r.data]
    assert summary["packs"] < summary["rows_train"] / 4
    assert summary["steps"] == 12 * -(-summary["packs"] // 2)
    assert 0.8 < summary["pack_density"] <= 1
    assert summary["rows_per_pack"] == pytest.approx(summary["rows_train"] / summary["packs"], abs=0.01)
    assert loss[-1] < loss[0] - 0.15
    assert eval_loss[-1] < eval_loss[0] - 0.15
