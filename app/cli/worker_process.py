"""The worker beside `loradeck serve`: started with it, started again where it dies, ended with it."""

from __future__ import annotations

import fcntl
import logging
import subprocess
import sys
import threading
from pathlib import Path

logger = logging.getLogger(__name__)

EXIT_ALREADY_RUNNING = 3  # the worker's own code: another one has the data folder
_RESTART_SECONDS = 2.0
_EXIT_SECONDS = 12.0


class WorkerProcess:
    """A context manager. The worker has a session of its own: it outlives a web process that is killed."""

    def __init__(self, lock: Path) -> None:
        self._lock = lock  # held by whichever worker serves the data folder
        self._stopping = threading.Event()
        self._process = self._spawn()
        self._thread = threading.Thread(target=self._keep, name="worker process", daemon=True)

    def __enter__(self) -> WorkerProcess:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stopping.set()
        self._process.terminate()
        try:
            self._process.wait(timeout=_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("the worker did not end in %.0f s; killing it", _EXIT_SECONDS)
            self._process.kill()
        self._thread.join()

    def _keep(self) -> None:
        while True:
            code = self._process.wait()
            if code == EXIT_ALREADY_RUNNING:
                logger.warning("another worker serves this data folder; this dashboard uses it while it lives")
            if self._wait_for_turn():
                return
            logger.error("there is no worker (the last one ended with code %s); starting one", code)
            self._process = self._spawn()

    def _wait_for_turn(self) -> bool:
        """Wait a little, and for as long as another worker lives. Returns whether the dashboard stops meanwhile."""
        while not self._stopping.wait(_RESTART_SECONDS):
            if not self._is_held():
                return False
        return True

    def _is_held(self) -> bool:
        with self._lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of when the file is closed
            except BlockingIOError:
                return True
        return False

    @staticmethod
    def _spawn() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "worker"], start_new_session=True)
