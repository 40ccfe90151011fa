"""A run that repeats another one is the same to the last bit, or says why it may not be, or is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import JobError
from tests.worker.tiny import ROWS, make_context, read_records, train_payload, write_rows
from worker.base_models.publish import hash_file
from worker.context import JobContext
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]


def _payload(model: Path, rows: Path) -> dict[str, Any]:
    payload = train_payload(model, rows, max_steps=4, eval_steps=2, lora_dropout=0.1, seed=3)
    payload["dataset"]["sha256"] = hash_file(rows)
    return payload


def _outcome(context: JobContext) -> tuple[list[tuple[int | None, float]], str]:
    """The loss curve as it was reported, and the hash of the adapter's weights."""
    metrics = [record for record in read_records(context) if record.kind == "metric"]
    curve = [(each.step, each.data[name]) for each in metrics for name in ("loss", "eval_loss") if name in each.data]
    return curve, hash_file(context.folder / "adapter" / "adapter_model.safetensors")


@pytest.fixture
def first(tiny_model: Path, tmp_path: Path) -> JobContext:
    """A training that is done, with its receipt."""
    context = make_context(tmp_path / "first", "train", _payload(tiny_model, write_rows(tmp_path / "rows.jsonl", ROWS)))
    run_training(context)
    return context


def _again(first: JobContext, folder: Path, **receipt: Any) -> JobContext:
    """The run of the first one's receipt, with changes to it, as the worker starts it."""
    then = json.loads((first.folder / "receipt.json").read_text())
    payload = {**first.payload, "spec": then["spec"], "rerun": {"job_id": 1, "receipt": {**then, **receipt}}}
    return make_context(folder, "train", payload)


def test_a_rerun_is_the_same_to_the_last_bit(
    first: JobContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    again = _again(first, tmp_path / "again")
    with caplog.at_level(logging.INFO):
        summary = run_training(again)
    assert _outcome(again) == _outcome(first)
    assert len(_outcome(again)[0]) == 4 + 3, "every step, and evals at 0, 2 and 4"
    assert (summary["rerun_of"], summary["rerun_differences"]) == (1, [])
    assert "runs job 1 again: same rows, model, versions and hardware" in caplog.text


def test_other_versions_and_hardware_are_named_and_no_obstacle(
    first: JobContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    then = json.loads((first.folder / "receipt.json").read_text())
    versions, hardware = {**then["versions"], "peft": "0.1"}, {**then["hardware"], "threads": 64, "ram_total_bytes": 1}
    summary = run_training(_again(first, tmp_path / "again", versions=versions, hardware=hardware))
    peft, threads = summary["rerun_differences"]
    assert peft.startswith("peft: 0.1 then, ")
    assert threads == "threads: 64 then, 1 now"
    assert "these differ: peft: 0.1 then" in caplog.text


@pytest.mark.parametrize(("part", "named"), [("dataset", "dataset boxes"), ("base_model", "base model tiny")])
def test_other_rows_or_model_files_are_refused_before_training(
    first: JobContext, tmp_path: Path, part: str, named: str
) -> None:
    then = json.loads((first.folder / "receipt.json").read_text())
    again = _again(first, tmp_path / "again", **{part: {**then[part], "sha256": "0" * 64}})
    with pytest.raises(JobError, match=f"{named} has changed since .sha256 000000000000 then") as caught:
        run_training(again)
    assert "loradeck jobs clone 1" in (caught.value.advice or "")
    assert not [record for record in read_records(again) if record.kind == "metric"]
