"""Files that a process locks for as long as it uses a data folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

from app.core.errors import Conflict
from app.core.paths import DataFolder


@contextmanager
def hold_alone(folder: DataFolder) -> Iterator[None]:
    """Keep dashboard and worker from starting on the data folder. Raises: Conflict where one runs."""
    with ExitStack() as held:
        for path, who in ((folder.web_lock, "dashboard"), (folder.worker_lock, "worker")):
            lock = held.enter_context(os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "a"))
            if not _take(lock):
                raise Conflict(f"A {who} runs on {folder.home}.", advice="Stop dashboard and worker, then try again.")
        yield


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
