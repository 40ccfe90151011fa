"""Whole jobs on plain text, with the tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.jobs.sampling import Sampling
from tests.worker.tiny import COLOURS, make_context, make_model, make_tokenizer, read_records, train_payload
from worker.context import JobContext
from worker.inference.generate import continue_text, run_generate
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

TEXTS = [f"Box {n} is {COLOURS[n % len(COLOURS)]}. " * 6 for n in range(24)]


@pytest.fixture
def payload(tmp_path: Path, tiny_model: Path) -> Callable[..., dict[str, Any]]:
    def make(**spec: Any) -> dict[str, Any]:
        rows = tmp_path / "rows.jsonl"
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
        payload = train_payload(tiny_model, rows, task="text", **spec)
        payload["dataset"]["kind"] = payload["dataset"]["format"] = "text"
        return payload

    return make


def train(folder: Path, payload: dict[str, Any]) -> tuple[dict[str, Any], JobContext]:
    context = make_context(folder / "job", "train", payload)
    return run_training(context), context


@pytest.mark.parametrize("packing", [False, True])
def test_text_job_learns_all_of_its_text(payload: Callable[..., dict[str, Any]], tmp_path: Path, packing: bool) -> None:
    summary, context = train(tmp_path, payload(max_steps=20, r=16, packing=packing, per_device_train_batch_size=2))
    metrics = [r for r in read_records(context) if r.kind == "metric"]
    loss = [r.data["loss"] for r in metrics if "loss" in r.data]
    eval_loss = [r.data["eval_loss"] for r in metrics if "eval_loss" in r.data]
    assert loss[-1] < loss[0] - 0.15
    assert eval_loss[-1] < eval_loss[0] - 0.15
    tokenizer = make_tokenizer()
    sizes = [len(tokenizer(text)["input_ids"]) for text in TEXTS]  # and the end, less the first, which is not predicted
    assert min(sizes) * 22 <= summary["trained_tokens_per_epoch"] <= max(sizes) * 22
    assert (summary["rows_train"], summary["rows_eval"], summary["rows_split"]) == (22, 2, 0)


def test_samples_go_on_with_the_openings_of_texts(payload: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    _, context = train(tmp_path, payload(max_steps=2))
    samples = [record.data for record in read_records(context) if record.kind == "sample"]
    assert [sample["model"] for sample in samples] == ["base", "tuned"] * 2
    for sample in samples:
        assert 0 < len(sample["prompt"]) < len(TEXTS[0])
        assert any(text.startswith(sample["prompt"]) for text in TEXTS)


def test_long_texts_are_split_unless_told_otherwise(payload: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    split, _ = train(tmp_path, payload(max_steps=1, max_length=16))
    assert (split["rows_split"], split["rows_truncated"], split["rows_dropped"]) == (24, 0, 0)
    cut, _ = train(tmp_path, payload(max_steps=1, max_length=16, overlong_rows="truncate"))
    assert (cut["rows_split"], cut["rows_truncated"], cut["rows_train"]) == (0, 24, 22)
    assert split["rows_train"] == 3 * cut["rows_train"]


def test_adapter_of_a_text_job_gets_no_chat_template(payload: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    given = payload(max_steps=1)
    model = tmp_path / "model"
    tokenizer = make_tokenizer(chat_template=None)
    make_model(tokenizer).save_pretrained(model)
    tokenizer.save_pretrained(model)
    given["base_model"]["path"] = str(model)
    _, context = train(tmp_path, given)
    assert not (context.folder / "adapter" / "chat_template.jinja").exists()


def test_continuation_starts_from_the_text_itself(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).eval()
    with torch.inference_mode():
        ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
        likeliest = int(model(input_ids=ids).logits[0, -1].argmax())
    found = continue_text(model, tokenizer, TEXTS[0], Sampling(max_new_tokens=1), lambda _: False)
    assert found.text == tokenizer.decode([likeliest], skip_special_tokens=True).strip()
    assert found.tokens == 1


def test_playground_of_a_text_job_goes_on_with_the_prompt(tiny_model: Path, tmp_path: Path) -> None:
    request = {
        "base_model": {"path": str(tiny_model)},
        "prompt": TEXTS[0],
        "max_new_tokens": 4,
        "spec": {"task": "text"},
    }
    answer = run_generate(make_context(tmp_path / "job", "playground", request))
    tokenizer, model = make_tokenizer(), make_model(make_tokenizer()).eval()
    wanted = continue_text(model, tokenizer, TEXTS[0], Sampling(max_new_tokens=4), lambda _: False)
    assert answer["text"] == wanted.text
