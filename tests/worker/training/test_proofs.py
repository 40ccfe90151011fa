"""A proof is made once for a model, its settings and this machine, and again where any of them differs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.jobs.spec import TrainingSpec, parse_spec
from tests.worker.tiny import make_model, make_tokenizer
from worker.training import attention, losses
from worker.training.attention import isolation_fault
from worker.training.losses import Scoring, choose_scoring
from worker.training.model import Hardware
from worker.training.proofs import keeping_proofs, proven, what_decides

pytestmark = pytest.mark.model

CPU = Hardware(torch.device("cpu"), torch.float32)


def make_spec(**values: Any) -> TrainingSpec:
    return parse_spec({"base_model": "m", "dataset": "d", **values})


def count(folder: Path | None, decides: dict[str, Any], value: float = 1.0) -> int:
    """How often two jobs prove the same."""
    made: list[float] = []

    def prove() -> list[float]:
        made.append(value)
        return [value]

    for _ in range(2):
        with keeping_proofs(folder, decides):
            assert proven("it", prove) == [value]
    return len(made)


def test_is_made_once_where_there_is_a_folder(tmp_path: Path) -> None:
    assert count(tmp_path / "proofs", {"a": 1}) == 1
    assert count(tmp_path / "proofs", {"a": 1}) == 0
    assert count(tmp_path / "proofs", {"a": 2}) == 1
    assert count(None, {"a": 1}) == 2


def test_is_made_anew_where_the_file_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    count(tmp_path, {})
    (file,) = tmp_path.iterdir()
    file.write_text('{"it": [1.')

    assert count(tmp_path, {}) == 1
    assert "made anew" in caplog.text


def test_a_proof_that_fails_is_not_kept(tmp_path: Path) -> None:
    def fail() -> bool:
        raise RuntimeError("no memory")

    with keeping_proofs(tmp_path, {}), pytest.raises(RuntimeError, match="no memory"):
        proven("it", fail)

    assert count(tmp_path, {}) == 1


def test_a_job_uses_what_an_earlier_one_has_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_tokenizer()
    with keeping_proofs(tmp_path, {}):
        assert isolation_fault(make_model(tokenizer), 64) is None
        assert choose_scoring(make_model(tokenizer)) is Scoring.CHUNKED

    def refuse(*_: Any) -> Any:
        raise AssertionError("it was proven already")

    monkeypatch.setattr(attention, "measure_isolation", refuse)
    monkeypatch.setattr(losses, "_chunks_equal_plain", refuse)
    with keeping_proofs(tmp_path, {}):
        assert isolation_fault(make_model(tokenizer), 64) is None
        assert choose_scoring(make_model(tokenizer)) is Scoring.CHUNKED


def test_rows_that_were_not_kept_apart_are_not_the_next_time_either(tmp_path: Path, monkeypatch: Any) -> None:
    model = make_model(make_tokenizer())
    leaking = attention.Proof(difference=0.5, leak=0.5, tolerance=1e-4)
    monkeypatch.setattr(attention, "measure_isolation", lambda _: leaking)
    for _ in range(2):
        with keeping_proofs(tmp_path, {}):
            assert "could not be proven apart" in str(isolation_fault(model, 64))


def test_other_files_settings_or_types_need_another_proof(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    first = what_decides(tmp_path, make_spec(), CPU)

    assert what_decides(tmp_path, make_spec(learning_rate=1e-3, seed=7, max_steps=3), CPU) == first
    assert what_decides(tmp_path, make_spec(use_dora=True), CPU) != first
    assert what_decides(tmp_path, make_spec(method="qlora"), CPU) != first
    assert what_decides(tmp_path, make_spec(), Hardware(CPU.device, torch.bfloat16)) != first
    os.utime(tmp_path / "config.json", ns=(1, 1))
    assert what_decides(tmp_path, make_spec(), CPU) != first
