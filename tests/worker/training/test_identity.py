"""A model of the same shapes is told apart, however large its files are."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.training import identity
from worker.training.identity import identify_model


def _write(folder: Path, weights: bytes, config: str = "{}") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(config)
    return folder


@pytest.fixture(params=["small", "large"])
def weights(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Bytes of a file that is read whole, and of one that is not."""
    content = bytes(range(256)) * 40
    if request.param == "large":
        monkeypatch.setattr(identity, "_WINDOW_BYTES", 16)
    return content


def test_the_same_files_are_the_same_model(weights: bytes, tmp_path: Path) -> None:
    assert identify_model(_write(tmp_path / "a", weights)) == identify_model(_write(tmp_path / "b", weights))


@pytest.mark.parametrize("change", ["all weights", "first byte", "last byte", "config", "size", "name"])
def test_another_model_of_the_same_shapes_is_another(change: str, weights: bytes, tmp_path: Path) -> None:
    folder = _write(tmp_path / "model", weights)
    known = identify_model(folder)
    changed = {
        "all weights": bytes(byte ^ 1 for byte in weights),
        "first byte": b"\x07" + weights[1:],
        "last byte": weights[:-1] + b"\x07",
        "size": weights + b"\0",
    }
    _write(folder, changed.get(change, weights), '{"a": 1}' if change == "config" else "{}")
    if change == "name":
        (folder / "config.json").rename(folder / "confih.json")
    assert identify_model(folder) != known


def test_a_large_file_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies between two samples is not seen: 64 samples of 16 bytes in 10,240."""
    monkeypatch.setattr(identity, "_WINDOW_BYTES", 16)
    weights = bytearray(10_240)
    known = identify_model(_write(tmp_path / "model", bytes(weights)))
    weights[100] = 1
    assert identify_model(_write(tmp_path / "model", bytes(weights))) == known
