"""Artifact folders are complete or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worker.artifacts.folders import DiskFull, check_free_space, folder_bytes, publish_artifact

pytestmark = pytest.mark.model


def test_folder_appears_with_its_meta(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with publish_artifact(target, {"kind": "adapter"}, 0) as folder:
        (folder / "a.txt").write_text("a")
        assert not target.exists()
    meta = json.loads((target / "meta.json").read_text())
    assert meta["kind"] == "adapter"
    assert [(file["path"], file["bytes"]) for file in meta["files"]] == [("a.txt", 1)]
    assert set(meta["versions"]) == {"torch", "transformers", "peft", "safetensors"}
    assert folder_bytes(target) == 1 + (target / "meta.json").stat().st_size


def test_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with publish_artifact(target, {}, 0) as folder:
        (folder / "a.txt").write_text("old")
    with pytest.raises(IsADirectoryError), publish_artifact(target, {}, 0) as folder:
        folder.write_text("this fails in mid-write")
    assert (target / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_later_attempt_replaces_the_folder(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    for name in ("old.txt", "new.txt"):
        with publish_artifact(target, {}, 0) as folder:
            (folder / name).write_text(name)
    assert sorted(path.name for path in target.iterdir()) == ["meta.json", "new.txt"]


def test_too_little_space_says_how_much_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="merged needs 1,073,741,888 MiB"):
        check_free_space(tmp_path / "jobs" / "merged", 1 << 50)
