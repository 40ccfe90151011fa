"""One worker for each data folder: a lock that its process holds for as long as it lives."""

from __future__ import annotations

import fcntl
import os
import time
from typing import IO

from app.core.errors import WorkerAlreadyRunning
from app.core.paths import OF_DASHBOARD, DataFolder

_TRIES = 5
_PAUSE_SECONDS = 0.05


def lock_data_folder(folder: DataFolder, *, of_dashboard: bool = False) -> IO[str]:
    """Hold the returned file open for as long as the worker runs; its lines are the pid and who started it.

    Raises: WorkerAlreadyRunning.
    """
    file = folder.worker_lock.open("a+")
    if not _take_lock(file):
        file.close()
        raise WorkerAlreadyRunning(
            f"Another worker already runs on {folder.home}.",
            advice="One worker serves a data folder: stop the other, or set LORADECK_HOME to another folder.",
        )
    file.truncate(0)
    file.write(f"{os.getpid()}\n{OF_DASHBOARD if of_dashboard else 'alone'}\n")
    file.flush()
    return file


def _take_lock(file: IO[str]) -> bool:
    """A dashboard that looks whether the lock is held holds it for an instant itself, hence several tries."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_SECONDS)
        else:
            return True
    return False
