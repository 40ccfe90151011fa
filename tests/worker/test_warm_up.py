"""A spare child gets ready without leaving anything that its job would see."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState

from worker import child, warm_up
from worker.training import preload

pytestmark = pytest.mark.model


def test_warm_up_loads_a_model_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    loaded = []
    monkeypatch.setattr(warm_up, "load_base_model", lambda folder, hardware: loaded.append((folder, hardware.device)))
    states = [dict(state._shared_state) for state in (AcceleratorState, PartialState)]
    warm_up.warm_up()
    ((folder, device),) = loaded
    assert device == torch.device("cpu")
    assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    assert [dict(state._shared_state) for state in (AcceleratorState, PartialState)] == states


def test_warm_up_really_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    models = []
    load = warm_up.load_base_model
    monkeypatch.setattr(warm_up, "load_base_model", lambda *given: models.append(load(*given)))
    warm_up.warm_up()
    assert sum(p.numel() for p in models[0].parameters()) < 10_000


@pytest.mark.parametrize(
    ("flags", "done"),
    [([], []), (["--spare"], ["warm"]), (["--spare", "/models/1"], ["warm", Path("/models/1")])],
)
def test_only_a_spare_child_warms_up(flags: list[str], done: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(sys, "argv", ["child", *flags])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(child, "prepare_process", lambda: None)
    monkeypatch.setattr(warm_up, "warm_up", lambda: calls.append("warm"))
    monkeypatch.setattr(preload, "preload", calls.append)
    assert child.main() == 0
    assert calls == done
