"""The dashboard's own worker steps back for another one, and takes over when that one is gone."""

from __future__ import annotations

import os
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
    text = folder.worker_lock.read_text().strip() if folder.worker_lock.exists() else ""
    return int(text or 0)


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
