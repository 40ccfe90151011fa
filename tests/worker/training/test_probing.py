"""A probe measures the largest step, and the run after it is the one that there would have been without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.worker.contexts import make_context, read_records
from tests.worker.tiny import ROWS, train_payload, write_rows
from worker.context import JobContext
from worker.training import probing
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

SPEC = {"max_steps": 4, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "lora_dropout": 0.1}


@pytest.fixture
def make_named(tiny_model: Path, tmp_path: Path) -> Callable[..., JobContext]:
    """A job in a folder of that name, of the task's own rows."""

    def make(name: str, **spec: Any) -> JobContext:
        rows = tmp_path / f"{spec.get('task', 'sft')}.jsonl"
        if spec.get("task") == "dpo":
            pairs = ({"prompt": row[:1], "chosen": row[1:], "rejected": ROWS[0][1:]} for row in ROWS[1:])
            rows.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
        else:
            write_rows(rows)
        return make_context(tmp_path / name, "train", train_payload(tiny_model, rows, **SPEC, **spec))

    return make


def run(context: JobContext) -> tuple[dict[str, Any], dict[str, torch.Tensor], list[Any]]:
    summary = run_training(context)
    points = [
        {name: value for name, value in record.data.items() if name != "tokens_per_second"}
        for record in read_records(context)
        if record.kind == "metric"
    ]
    return summary, load_file(context.folder / "adapter/adapter_model.safetensors"), points


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_leaves_no_trace_in_the_run(make_named: Callable[..., JobContext], task: str) -> None:
    _, weights, points = run(make_named("plain", task=task))
    summary, same_weights, same_points = run(make_named("probed", task=task, probe=True))

    assert same_points == points
    assert all(torch.equal(same_weights[name], tensor) for name, tensor in weights.items())
    assert summary["probe"]["steps"] == 2
    assert summary["probe"]["memory"] == "process"
    assert summary["probe"]["peak_bytes"] > 50e6


def test_takes_the_longest_batch_first_and_says_so(
    make_named: Callable[..., JobContext], caplog: pytest.LogCaptureFixture
) -> None:
    context = make_named("job", probe=True)
    with caplog.at_level("INFO"):
        summary, _, points = run(context)

    phases = [record.data["phase"] for record in read_records(context) if record.kind == "phase"]
    assert phases.index("probe") < phases.index("train")
    read = max(point.get("tokens", 0) for point in points)
    assert summary["probe"]["tokens"] >= read / (4 * 2)  # no micro-batch has more than the longest
    assert "probe: the largest step" in caplog.text


def test_a_lack_of_memory_comes_before_the_first_step(
    make_named: Callable[..., JobContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(probing, "_step", run_out)
    context = make_named("job", probe=True)

    with pytest.raises(torch.OutOfMemoryError):
        run_training(context)
    assert not [record for record in read_records(context) if record.kind == "metric"]
