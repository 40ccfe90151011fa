"""In which order a folder reaches the disk, and what a kill at each moment in between leaves."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from worker.artifacts.folders import folder_fault, publish_artifact
from worker.artifacts.steps import collect_halves, drop_old_steps, step_folders

KEPT = 2
_TOUCHED = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}  # audit events that come before what they name


def publish_step(parent: Path, step: int) -> None:
    """As a run saves a state: two files, one of them in a folder of its own, and then what is old goes."""
    with publish_artifact(parent / f"step-{step}", {"step": step}, 0) as folder:
        (folder / "weights").write_bytes(bytes(5000))
        (folder / "deep").mkdir()
        (folder / "deep" / "notes").write_text("of step " * step)
    drop_old_steps(parent, KEPT, best_step=None)


def test_files_are_on_the_disk_before_the_manifest_and_that_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[str, str]] = []
    fsync, rename, open_path, home = os.fsync, Path.rename, Path.open, tmp_path / "job" / "state"

    def note(what: str, path: Path) -> None:
        order.append((what, str(path.relative_to(tmp_path))))

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        note("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    def renamed(path: Path, target: Path) -> Path:
        note("rename", target)
        return rename(path, target)

    def opened(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if path.name == "meta.json" and mode == "w":
            note("write", path)
        return open_path(path, mode, *rest, **named)

    publish_step(home, 2)
    publish_step(home, 4)
    shutil.rmtree(home / "step-2")
    for place, name, watched in ((os, "fsync", synced), (Path, "rename", renamed), (Path, "open", opened)):
        monkeypatch.setattr(place, name, watched)
    publish_step(home, 6)
    half, state = "job/state/.step-6.partial", "job/state"
    before = set(order[: order.index(("write", f"{half}/meta.json"))])
    assert {
        ("sync", f"{half}/weights"),
        ("sync", f"{half}/deep/notes"),
        ("sync", half),
        ("sync", f"{half}/deep"),
    } == before
    after = order[len(before) :]
    assert after[:2] == [("write", f"{half}/meta.json"), ("sync", f"{half}/meta.json")]
    assert after.index(("sync", half)) < after.index(("rename", f"{state}/step-6"))
    assert after[-2:] == [("rename", f"{state}/step-6"), ("sync", state)]


def test_a_new_folders_name_is_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr("worker.base_models.publish.fsync_folder", lambda path: synced.append(path.name))
    publish_step(tmp_path / "job" / "state", 2)
    assert synced[:2] == [tmp_path.name, "job"], "state is an entry of job, and job one of the folder above"


def _named(event: str, arguments: tuple[Any, ...]) -> Path:
    """The path that an audit event tells of, which may be told as a name in an open folder."""
    name, folder = str(arguments[0]), -1 if event == "open" else arguments[-1]
    return Path(name) if folder < 0 else Path(os.readlink(f"/proc/self/fd/{folder}"), name)


def killed_at(moment: int, parent: Path, work: Callable[[], None]) -> str | None:
    """Do the work in a process that kills itself as it is about to touch the disk for the n-th time below `parent`.

    Returns what it was about to do; None where it came to its end before.
    """
    window = parent.parent / "window"
    pid = os.fork()
    if pid == 0:
        left = moment

        def look(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event not in _TOUCHED or not (path := _named(event, arguments)).is_relative_to(parent):
                return
            left -= 1
            if left == 0:
                os.write(descriptor, f"{event} {path.relative_to(parent)}".encode())
                os.kill(os.getpid(), signal.SIGKILL)

        descriptor = os.open(window, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        sys.addaudithook(look)
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return window.read_text() if os.WIFSIGNALED(status) else None


def test_a_kill_at_any_moment_leaves_a_step_to_go_on_from_and_the_rest_is_collected(tmp_path: Path) -> None:
    met: list[str] = []
    while True:
        job = tmp_path / str(len(met))
        parent = job / "state"
        publish_step(parent, 2)
        publish_step(parent, 4)
        window = killed_at(len(met) + 1, parent, partial(publish_step, parent, 6))
        if window is None:
            break
        met.append(window)
        whole = [step for step, folder in step_folders(parent) if folder_fault(folder) is None]
        assert len(whole) == len(step_folders(parent)), f"{window}: half a folder bears the name of a whole one"
        assert len(whole) >= KEPT, window
        assert max(whole) >= 4, window
        collect_halves(job)
        publish_step(parent, 6)
        assert sorted(path.name for path in parent.iterdir()) == ["step-4", "step-6"], window
    for window in ("os.mkdir .step-6.partial", "open .step-6.partial/meta.json", "os.rename .step-6.partial"):
        assert window in met
    for window in ("os.rename step-2", "os.remove .step-2.removed/weights", "os.rmdir .step-2.removed"):
        assert window in met
    assert len(met) > 15
