"""What a run held of a GPU, read from CUDA's allocator (played here) and held against the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.planning.calibration import in_groups
from app.core.planning.config import load_config
from app.core.planning.plan import Data, make_plan
from worker.training.memory_marks import MemoryMarks
from worker.training.model import Hardware

pytestmark = pytest.mark.model

CONFIG = Path(__file__).parents[2] / "fixtures" / "configs" / "llama-3.2-1b.json"
CUDA = Hardware(torch.device("cuda:0"), torch.bfloat16)


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """CUDA's figures, to be set by the test."""
    figures = {"memory_allocated": 0, "max_memory_allocated": 0}
    for name in figures:
        monkeypatch.setattr(torch.cuda, name, lambda _device, name=name: figures[name])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Imaginary 9000")
    return figures


def make_spec(**values: Any) -> TrainingSpec:
    return parse_spec({"base_model": "m", "dataset": "d", **values})


def make_model(*, adapted: bool) -> Any:
    model = torch.nn.Linear(100, 10, bias=False)  # 4,000 bytes, all of them trainable
    if adapted:
        model.peft_config = {}  # type: ignore[assignment]
    return model


def measure(allocator: dict[str, int], spec: TrainingSpec, *, adapted: bool = True) -> dict[str, Any]:
    allocator["memory_allocated"] = 104_000
    marks = MemoryMarks(make_model(adapted=adapted), CUDA)
    allocator |= {"memory_allocated": 112_000, "max_memory_allocated": 150_000}
    return marks.summary(CONFIG, spec, longest_row=100)


def test_components_are_told_apart(allocator: dict[str, int]) -> None:
    spec = make_spec(per_device_train_batch_size=2)
    memory = measure(allocator, spec)["memory"]
    plan = make_plan(load_config(CONFIG), spec, data=Data(longest_row=100))

    assert memory["measured"] == {"weights": 100_000, "adapter": 4_000, "optimizer": 8_000, "working": 38_000}
    assert sum(memory["measured"].values()) == memory["allocated_bytes"] == 150_000
    assert plan.components is not None
    assert memory["planned"] == in_groups(plan.components)
    assert memory["device"] == "Imaginary 9000"


def test_of_a_whole_model_what_learns_are_its_weights(allocator: dict[str, int]) -> None:
    assert measure(allocator, make_spec(method="full"), adapted=False)["memory"]["measured"]["weights"] == 104_000


def test_a_model_that_is_not_planned_and_a_cpu_leave_nothing(allocator: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    marks = MemoryMarks(make_model(adapted=True), CUDA)

    assert marks.summary(tmp_path, make_spec(), 100) == {}
    assert (
        MemoryMarks(make_model(adapted=True), Hardware(torch.device("cpu"), torch.float32)).summary(
            CONFIG, make_spec(), 100
        )
        == {}
    )
