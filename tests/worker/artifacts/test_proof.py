"""What the process that proves a merge leaves behind."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from worker.artifacts import proof


def test_an_answer_that_meets_a_full_disk_comes_whole_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "proof.json", Path.write_text
    full = [True, True]

    def write_text(self: Path, text: str, **options: str) -> int:
        if not full:
            return write(self, text, **options)
        full.pop()
        write(self, text[:3], **options)  # what did fit
        raise OSError(errno.ENOSPC, "No space left on device")

    def look(_seconds: float) -> None:
        assert not path.exists(), "half an answer is none"

    monkeypatch.setattr(Path, "write_text", write_text)
    monkeypatch.setattr(proof.time, "sleep", look)
    proof.leave_answer(path, {"passed": True})
    assert json.loads(path.read_text()) == {"passed": True}
    assert list(tmp_path.iterdir()) == [path]


def test_another_fault_of_the_disk_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        proof.leave_answer(tmp_path / "nowhere" / "proof.json", {"passed": True})
