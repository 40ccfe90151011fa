"""A disk that is full is said to be, whatever the library that was writing makes of it."""

from __future__ import annotations

import errno
from collections import namedtuple
from pathlib import Path

import pytest
from safetensors import SafetensorError

from worker.artifacts.disk import DiskFull, is_disk_full, telling_full_disk

Usage = namedtuple("Usage", "total used free")

# As the libraries say it on a tmpfs that is full. Torch's writer says only that it is not where it should be.
SAYINGS = [
    pytest.param(OSError(errno.ENOSPC, "No space left on device"), id="Python"),
    pytest.param(OSError(errno.EDQUOT, "Disk quota exceeded"), id="a quota"),
    pytest.param(
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), id="safetensors"
    ),
    pytest.param(Exception("No space left on device (os error 28)"), id="tokenizers"),
]
TORCH = "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"


@pytest.mark.parametrize("error", SAYINGS)
def test_full_disk_is_told_with_what_is_needed_and_what_to_do(error: Exception, tmp_path: Path) -> None:
    assert is_disk_full(error)
    with pytest.raises(DiskFull, match=r"Disk full: step-4 needs 67 MiB of free disk space") as told:
        write(tmp_path / "step-4", error)
    assert "Delete old jobs" in str(told.value.advice)
    assert told.value.__cause__ is error


def test_torch_is_believed_only_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="unexpected pos"):
        write(tmp_path / "step-4", RuntimeError(TORCH))
    monkeypatch.setattr("worker.artifacts.disk.shutil.disk_usage", lambda _: Usage(10**9, 10**9 - 4096, 4096))
    with pytest.raises(DiskFull, match="has 0 MiB"):
        write(tmp_path / "step-4", RuntimeError(TORCH))


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), ValueError("no space for doubt")])
def test_another_failure_is_no_full_disk(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error), match=str(error.args[-1])):
        write(tmp_path / "step-4", error)


def write(target: Path, error: Exception) -> None:
    with telling_full_disk(target, 3 * 1024**2):
        raise error
