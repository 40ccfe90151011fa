"""The dashboard's own worker steps back for another one, and takes over when that one is gone."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.cli.worker_process import EXIT_ALREADY_RUNNING, WorkerProcess
from app.core.paths import DataFolder
from app.core.settings import Settings
from tests.live_server import environment_for
from worker.lock import lock_data_folder


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def holder(folder: DataFolder) -> int:
    """Pid in the lock file, 0 where there is none."""
    lines = folder.worker_lock.read_text().splitlines() if folder.worker_lock.exists() else []
    return int(lines[0]) if lines else 0


def has_ended(pid: int) -> bool:
    """Whether it is gone, or waits only for a parent that never asks, as in a container without an init."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_worker_that_dies_is_started_again_and_ended_at_the_end(
    settings: Settings, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORADECK_SPARE_CHILD", "false")
    monkeypatch.chdir(Path(__file__).parents[2])
    with WorkerProcess(folder.worker_lock):
        wait_until(lambda: holder(folder) > 0)
        first = holder(folder)
        psutil.Process(first).kill()
        wait_until(lambda: holder(folder) not in (0, first))
        second = holder(folder)
    assert not psutil.pid_exists(second)


def test_worker_takes_over_when_another_one_is_gone(
    settings: Settings, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORADECK_SPARE_CHILD", "false")
    monkeypatch.chdir(Path(__file__).parents[2])
    other = lock_data_folder(folder)
    with WorkerProcess(folder.worker_lock) as process:
        assert process.note is not None
        assert f"(pid {os.getpid()})" in process.note
        time.sleep(2.5)
        assert holder(folder) == os.getpid()
        other.close()
        wait_until(lambda: holder(folder) not in (0, os.getpid()))


def test_worker_that_meets_another_one_steps_back_and_says_whose_it_is(
    settings: Settings, folder: DataFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The other one takes the lock between the look and the start."""
    monkeypatch.setenv("LORADECK_SPARE_CHILD", "false")
    monkeypatch.chdir(Path(__file__).parents[2])
    process = WorkerProcess(folder.worker_lock)
    assert process._process is not None
    with lock_data_folder(folder), process:  # a worker takes longer to be imported than this
        wait_until(lambda: f"A worker runs already (pid {os.getpid()})" in caplog.text)
        assert process._process.returncode == EXIT_ALREADY_RUNNING
    assert f"`kill {os.getpid()}` ends it" in caplog.text


def serve(folder: DataFolder, log: Path) -> tuple[subprocess.Popen[bytes], int]:
    """`loradeck serve` with its worker, once both are there; and the worker's pid."""
    environment = {**environment_for(folder.home), "LORADECK_SPARE_CHILD": "false"}
    folder.server_json.unlink(missing_ok=True)
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve"], env=environment, stdout=file, stderr=file
        )
    wait_until(lambda: "Ctrl+C" in log.read_text() and holder(folder) > 0)
    return process, holder(folder)


def test_worker_of_a_killed_dashboard_is_named_by_the_next_one_and_ends_with_it(
    folder: DataFolder, tmp_path: Path
) -> None:
    killed, worker = serve(folder, tmp_path / "first.log")
    killed.kill()
    killed.wait()
    following, same = serve(folder, log := tmp_path / "second.log")
    assert same == worker
    wait_until(lambda: f"A worker runs already (pid {worker})" in log.read_text())
    assert "ends with this one" in log.read_text()
    following.terminate()
    assert following.wait(timeout=40) == 0
    assert has_ended(worker)
    assert f"ending the worker that an earlier dashboard left behind (pid {worker})" in log.read_text()


def test_worker_that_was_started_alone_goes_on_and_is_said_to(
    settings: Settings, folder: DataFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LORADECK_SPARE_CHILD", "false")
    monkeypatch.chdir(Path(__file__).parents[2])
    alone = subprocess.Popen([sys.executable, "-m", "worker"])
    try:
        wait_until(lambda: holder(folder) == alone.pid)
        with WorkerProcess(folder.worker_lock) as process:
            assert process.note is not None
            assert f"(pid {alone.pid})" in process.note
            assert "goes on when this dashboard ends" in process.note
        assert alone.poll() is None
        assert f"`kill {alone.pid}` ends it" in caplog.text
    finally:
        alone.terminate()
        alone.wait(timeout=20)


def test_a_dashboard_that_ends_while_its_worker_is_gone_starts_no_other(
    settings: Settings, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment between the decision to start one and its start."""
    spawned: list[subprocess.Popen[bytes]] = []

    def spawn() -> subprocess.Popen[bytes]:
        spawned.append(subprocess.Popen([sys.executable, "-c", "pass"]))
        return spawned[-1]

    monkeypatch.setattr(WorkerProcess, "_spawn", staticmethod(spawn))
    process = WorkerProcess(folder.worker_lock)
    turns = iter([False, True])  # the first is up just as the dashboard stops
    monkeypatch.setattr(process, "_wait_for_turn", lambda: next(turns) if process._stopping.wait() else None)
    with process:
        spawned[0].wait()
    assert len(spawned) == 1


def test_a_worker_starts_while_a_dashboard_looks_at_its_lock(folder: DataFolder) -> None:
    folder.worker_lock.touch()
    with folder.worker_lock.open("a") as look:
        fcntl.flock(look, fcntl.LOCK_EX)
        looked = threading.Timer(0.1, look.close)
        looked.start()
        lock_data_folder(folder).close()
    looked.join()
    assert holder(folder) == os.getpid()


def test_a_second_worker_is_a_failure_for_people(
    settings: Settings, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    command = [sys.executable, "-m", "app.cli", "worker"]
    with lock_data_folder(folder):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "Another worker already runs" in second.stderr
