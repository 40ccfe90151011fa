"""The receipt says what decided a run."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.worker.tiny import ROWS, make_context, save_tiny_model, train_payload, write_rows
from worker.base_models.publish import hash_file
from worker.training.receipt import hash_model
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]


def test_receipt_holds_what_decided_the_result(tmp_path: Path) -> None:
    model, rows = save_tiny_model(tmp_path / "tiny"), write_rows(tmp_path / "rows.jsonl", ROWS)
    payload = train_payload(model, rows, max_steps=2, seed=7)
    source = {"kind": "hub", "hub_id": "owner/data", "revision": "c" * 40}
    payload["dataset"] |= {"sha256": hash_file(rows), "source": source}
    payload["base_model"] |= {"hub_id": "owner/tiny", "revision": "d" * 40}
    context = make_context(tmp_path / "job", "train", payload)
    summary = run_training(context)
    receipt = json.loads((context.folder / "receipt.json").read_text())
    assert receipt["result"] == summary
    assert (receipt["seed"], receipt["spec"]["max_steps"]) == (7, 2)
    facts = {"name": "boxes", "format": "messages", "sha256": hash_file(rows), "source": source}
    assert receipt["dataset"] == facts
    assert (receipt["base_model"]["hub_id"], receipt["base_model"]["revision"]) == ("owner/tiny", "d" * 40)
    assert receipt["base_model"]["sha256"] == hash_model(model)
    assert receipt["versions"]["peft"] == version("peft")
    assert receipt["hardware"]["device"] == "cpu"
    assert summary["trained_tokens_per_epoch"] > 0
    assert not (context.folder / ".receipt.json").exists()
    assert str(tmp_path) not in json.dumps(receipt), "a receipt can be shared: no path of this machine"


def test_model_hash_follows_the_weights_and_not_the_place(tmp_path: Path) -> None:
    here, there = save_tiny_model(tmp_path / "here"), save_tiny_model(tmp_path / "deep" / "there")
    assert hash_model(here) == hash_model(there)
    weights = there / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert hash_model(here) != hash_model(there)
