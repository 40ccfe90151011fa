"""The dashboard's own worker steps back for another one, and takes over when that one is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.cli.worker_process import WorkerProcess
from app.core.paths import DataFolder
from app.core.settings import Settings
from worker.loop import lock_data_folder


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def holder(folder: DataFolder) -> int:
    """Pid in the lock file, 0 where there is none."""
    lines = folder.worker_lock.read_text().splitlines() if folder.worker_lock.exists() else []
    return int(lines[0]) if lines else 0


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
        wait_until(lambda: process._process.poll() is not None)
        time.sleep(2.5)
        assert holder(folder) == os.getpid()
        other.close()
        wait_until(lambda: holder(folder) not in (0, os.getpid()))


def test_worker_left_by_a_killed_dashboard_is_named_and_ended_with_the_next_one(
    settings: Settings, folder: DataFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LORADECK_SPARE_CHILD", "false")
    monkeypatch.chdir(Path(__file__).parents[2])
    orphan = WorkerProcess._spawn()
    wait_until(lambda: holder(folder) == orphan.pid)
    with WorkerProcess(folder.worker_lock) as process:
        wait_until(lambda: f"pid {orphan.pid}" in caplog.text)
        assert process._process.poll() is not None
    assert orphan.wait(timeout=20) == 0
    assert "ends with this one" in caplog.text


def test_worker_that_was_started_alone_goes_on_and_is_said_to(
    settings: Settings, folder: DataFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LORADECK_SPARE_CHILD", "false")
    monkeypatch.chdir(Path(__file__).parents[2])
    alone = subprocess.Popen([sys.executable, "-m", "worker"])
    try:
        wait_until(lambda: holder(folder) == alone.pid)
        with WorkerProcess(folder.worker_lock):
            wait_until(lambda: f"pid {alone.pid}" in caplog.text)
        assert alone.poll() is None
        assert f"`kill {alone.pid}` ends it" in caplog.text
    finally:
        alone.terminate()
        alone.wait(timeout=20)


def test_a_second_worker_is_a_failure_for_people(
    settings: Settings, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with lock_data_folder(folder):
        second = subprocess.run([sys.executable, "-m", "worker"], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "Another worker already runs" in second.stdout + second.stderr
