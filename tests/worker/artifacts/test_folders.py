"""Artifact folders are complete or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.core.artifacts.manifest import folder_fault, kept_mark
from worker.artifacts.disk import DiskFull, check_free_space
from worker.artifacts.folders import folder_bytes, publish_artifact
from worker.artifacts.steps import collect_halves, drop_old_steps, drop_steps_after, step_folders

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
    with pytest.raises(DiskFull, match="Disk full: merged needs 1,073,741,888 MiB"):
        check_free_space(tmp_path / "jobs" / "merged", 1 << 50)


def publish_steps(parent: Path, *steps: int) -> None:
    for step in steps:
        with publish_artifact(parent / f"step-{step}", {}, 0) as folder:
            (folder / "a.txt").write_text("a")


def names(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir())


def test_old_steps_go_but_the_newest_and_the_best(tmp_path: Path) -> None:
    publish_steps(tmp_path, 2, 4, 8, 10, 12)
    drop_old_steps(tmp_path, 2, best_step=4)
    assert names(tmp_path) == ["step-10", "step-12", "step-4"]


def test_no_old_step_goes_while_the_newest_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish_steps(tmp_path, 2, 4, 8)
    (tmp_path / "step-8" / "a.txt").write_text("b")
    drop_old_steps(tmp_path, 1, best_step=None)
    assert names(tmp_path) == ["step-2", "step-4", "step-8"]
    assert "older ones are kept, since a.txt is damaged" in caplog.text


def test_later_steps_go(tmp_path: Path) -> None:
    publish_steps(tmp_path, 2, 4, 10)
    drop_steps_after(tmp_path, 4)
    assert names(tmp_path) == ["step-2", "step-4"]
    drop_steps_after(tmp_path, 0)
    assert names(tmp_path) == []


def test_halves_are_collected_and_a_folder_without_its_successor_comes_back(tmp_path: Path) -> None:
    checkpoints, states = tmp_path / "checkpoints", tmp_path / "state"
    publish_steps(checkpoints, 2, 4)
    publish_steps(states, 2, 4)
    for leftover in (tmp_path / ".adapter.partial", states / ".step-6.partial", checkpoints / ".step-0.removed"):
        (leftover / "half").mkdir(parents=True)
    (states / "step-4").rename(states / ".step-4.old")
    (checkpoints / "step-2").rename(checkpoints / ".step-4.old")
    collect_halves(tmp_path)
    assert names(tmp_path) == ["checkpoints", "state"]
    assert (names(checkpoints), names(states)) == (["step-4"], ["step-2", "step-4"])


def test_a_step_is_removed_though_an_earlier_removal_was_cut_short(tmp_path: Path) -> None:
    publish_steps(tmp_path, 2, 4)
    (tmp_path / ".step-2.removed" / "half").mkdir(parents=True)
    drop_old_steps(tmp_path, 1, best_step=None)
    assert names(tmp_path) == ["step-4"]


def test_what_somebody_keeps_stays_and_takes_no_others_place(tmp_path: Path) -> None:
    publish_steps(tmp_path, 2, 4, 6, 8, 10)
    for step in (2, 6):
        kept_mark(tmp_path / f"step-{step}").touch()
    drop_old_steps(tmp_path, 2, best_step=None)
    assert [step for step, _ in step_folders(tmp_path)] == [2, 6, 8, 10]
    drop_steps_after(tmp_path, 0)
    assert [step for step, _ in step_folders(tmp_path)] == [2, 6]


def test_mark_that_comes_in_mid_removal_brings_the_step_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_steps(tmp_path, 2, 4)
    rename = Path.rename

    def keep_meanwhile(path: Path, target: Path) -> Path:
        kept_mark(tmp_path / "step-2").touch()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", keep_meanwhile)
    drop_old_steps(tmp_path, 1, best_step=None)
    assert [step for step, _ in step_folders(tmp_path)] == [2, 4]
    assert folder_fault(tmp_path / "step-2") is None
