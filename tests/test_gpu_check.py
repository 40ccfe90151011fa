from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from scripts.gpu_check import (
    check_training,
    compare_with_nvidia_smi,
    judge_child_memory,
    judge_plan,
    judge_training,
)
from scripts.gpu_check_job import STEPS, make_assignment
from tests.nvml.stand_in import GIB, REPOSITORY
from worker.gpu import Sampler
from worker.nvml import DeviceReading
from worker.spool import Record

MIB = 1024**2


def device(**values: Any) -> DeviceReading:
    read: dict[str, Any] = {
        "index": 0,
        "name": "Stand-in GPU",
        "uuid": "GPU-a",
        "vram_total_bytes": 24 * GIB,
        "vram_used_bytes": 2 * GIB,
        "utilization_percent": 0,
        "temperature_celsius": 50,
        "power_watts": 60.5,
        "power_limit_watts": 350.0,
        "processes": (),
        "process_vram_bytes": None,
    }
    return DeviceReading(**{**read, **values})


def record(kind: str, data: dict[str, Any], step: int | None = None) -> Record:
    return Record(seq=1, time=0.0, kind=cast(Any, kind), step=step, data=data)


def test_machine_without_a_gpu_says_so_and_exits_1(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").touch()  # hides a real one from the loader, and cannot be loaded itself
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, "-m", "scripts.gpu_check"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False)

    assert result.returncode == 1
    assert result.stdout.startswith("[FAILED] NVML: No GPU can be read here. NVML (libnvidia-ml.so.1) was not found")


def test_same_values_as_nvidia_smi_pass() -> None:
    assert compare_with_nvidia_smi((device(),), "GPU-a, 24576, 2050, 51, 350.00\n").passed


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("GPU-a, 24576, 9000, 51, 350.00", "memory.used: 2048.0 here, 9000 there"),
        ("GPU-a, 12288, 2048, 51, 350.00", "memory.total"),
        ("GPU-a, 24576, 2048, [N/A], 350.00", "temperature.gpu: 50 here, [N/A] there"),
        ("GPU-b, 24576, 2048, 50, 350.00", "GPU-b"),
    ],
)
def test_other_values_than_nvidia_smi_fail_and_are_named(row: str, words: str) -> None:
    check = compare_with_nvidia_smi((device(),), row)

    assert not check.passed
    assert words in check.seen


def test_value_that_nvidia_smi_cannot_read_must_be_none() -> None:
    assert compare_with_nvidia_smi((device(power_limit_watts=None),), "GPU-a, 24576, 2048, 50, [N/A]").passed


def test_training_passes_with_a_loss_for_each_step() -> None:
    losses = [record("metric", {"loss": 2.0}, step) for step in range(1, STEPS + 1)]
    finished = record("finished", {"outcome": "completed", "summary": {"device": "cuda"}, "error": None})

    assert judge_training([*losses, finished], "").passed
    assert not judge_training([*losses[1:], finished], "").passed


def test_failed_training_shows_the_error_and_the_logs_end() -> None:
    error = {"kind": "out_of_memory", "message": "full", "advice": None}
    check = judge_training(
        [record("finished", {"outcome": "failed", "summary": {}, "error": error})], "first\nlast line"
    )

    assert not check.passed
    assert "out_of_memory" in check.seen
    assert "last line" in check.seen
    assert not judge_training([], "killed").passed


def test_child_without_memory_on_the_gpu_fails() -> None:
    assert judge_child_memory(300 * MIB).passed
    assert not judge_child_memory(None).passed
    assert not judge_child_memory(0).passed


@pytest.mark.model
def test_rows_of_the_check_are_trainable_by_its_model(tmp_path: Path) -> None:
    from worker.training.data import encode_row, ensure_chat_template
    from worker.training.reading import read_rows
    from worker.training.tokenizer import load_tokenizer

    payload = make_assignment(tmp_path).payload
    tokenizer = load_tokenizer(payload["base_model"]["path"])
    ensure_chat_template(tokenizer)
    rows = list(read_rows(Path(payload["dataset"]["path"])))
    encoded = encode_row(tokenizer, rows[0], payload["spec"]["max_length"])

    assert len(rows) >= STEPS * payload["spec"]["per_device_train_batch_size"] / 4
    assert encoded.trained_tokens > 10
    assert not encoded.truncated


@pytest.mark.model
def test_job_of_the_check_trains_on_whatever_device_there_is(tmp_path: Path) -> None:
    training, memory, planned, quantised = check_training(Sampler(tmp_path))

    for check, optim in ((training, "adamw_torch"), (quantised, "adamw_8bit")):
        assert check.passed, check.seen
        assert f"losses of {STEPS} steps" in check.seen
        assert optim in check.seen
    assert (memory.name, planned.name) == ("process_vram_bytes", "memory beside the plan")


@pytest.mark.parametrize(("weights", "passed"), [(100 * MIB, True), (103 * MIB, False)])
def test_weights_and_adapter_must_be_the_planned_ones(weights: int, passed: bool) -> None:
    planned = {"weights": 100 * MIB, "adapter": MIB, "optimizer": MIB, "working": MIB, "overhead": MIB}
    measured = {"weights": weights, "adapter": MIB, "optimizer": MIB, "working": 9 * MIB}
    summary = {"memory": {"planned": planned, "measured": measured}, "probe": {"peak_bytes": 7 * MIB}}
    check = judge_plan([record("finished", {"outcome": "completed", "summary": summary})])

    assert check.passed is passed
    assert f"weights {weights / MIB:.1f} of 100.0" in check.seen
    assert "probe 7.0" in check.seen
    assert not judge_plan([record("finished", {"outcome": "completed", "summary": {}})]).passed
