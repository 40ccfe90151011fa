"""The worker beside `loradeck serve`: started with it, started again where it dies, ended with it."""

from __future__ import annotations

import fcntl
import logging
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from app.core.paths import OF_DASHBOARD

logger = logging.getLogger(__name__)

EXIT_INVALID = 2  # the worker's own code: starting it again cannot help
EXIT_ALREADY_RUNNING = 3  # the worker's own code: another one has the data folder
_RESTART_SECONDS = 2.0
_EXIT_SECONDS = 12.0


class WorkerProcess:
    """A context manager. The worker has a session of its own: it outlives a web process that is killed."""

    def __init__(self, lock: Path) -> None:
        self._lock = lock  # held by whichever worker serves the data folder
        self._stopping = threading.Event()
        self._spawning = threading.Lock()  # no worker is started once the dashboard stops
        self._thread = threading.Thread(target=self._keep, name="worker process", daemon=True)
        self.note = self._describe_other()  # what to say of a worker that runs already; None where there is none
        self._process = self._spawn() if self.note is None else None

    def __enter__(self) -> WorkerProcess:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        with self._spawning:
            self._stopping.set()
        if self._process is not None:
            self._end(self._process)
        self._thread.join()
        self._end_other()

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(timeout=_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("the worker did not end in %.0f s; killing it", _EXIT_SECONDS)
            process.kill()

    def _keep(self) -> None:
        while True:
            code = self._process.wait() if self._process is not None else None
            if code == EXIT_ALREADY_RUNNING:  # another one was faster
                logger.warning("%s", self._describe_other() or "another worker ran for a moment")
            if code == EXIT_INVALID:
                logger.error("the worker has said why it cannot run; it is not started again")
                return
            if self._wait_for_turn() or not self._start_again(code):
                return

    def _start_again(self, code: int | None) -> bool:
        """Whether the dashboard still wants a worker, and so has a new one."""
        with self._spawning:
            if self._stopping.is_set():
                return False
            last = "an earlier one" if code in (None, EXIT_ALREADY_RUNNING) else f"the last one, exit code {code},"
            logger.error("there is no worker (%s has ended); starting one", last)
            self._process = self._spawn()
        return True

    def _describe_other(self) -> str | None:
        other = self._read_other()
        if other is None:
            return None
        pid, of_dashboard = other
        fate = (
            "An earlier dashboard left it behind; it ends with this one."
            if of_dashboard
            else "It was started alone and goes on when this dashboard ends."
        )
        return f"A worker runs already (pid {pid}), and this dashboard uses it. {fate}"

    def _end_other(self) -> None:
        """End a worker that an earlier, killed dashboard left behind; one that was started alone goes on."""
        other = self._read_other()
        if other is None:
            return
        pid, of_dashboard = other
        if not of_dashboard:
            logger.warning("the worker that was started alone (pid %d) goes on; `kill %d` ends it", pid, pid)
            return
        logger.warning("ending the worker that an earlier dashboard left behind (pid %d)", pid)
        _end_by_pid(pid)

    def _read_other(self) -> tuple[int, bool] | None:
        """Pid of the worker that holds the lock, and whether a dashboard started it; None where there is none."""
        if not self._is_held():
            return None
        lines = self._lock.read_text(encoding="utf-8").splitlines()
        return (int(lines[0]), OF_DASHBOARD in lines[1:]) if lines else None

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
        return subprocess.Popen([sys.executable, "-m", "worker", "--of-dashboard"], start_new_session=True)


def _end_by_pid(pid: int) -> None:
    """Until the process is gone, not only its lock, which it lets go of a moment before."""
    import psutil  # imported here: the client commands do not need it

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for number in (signal.SIGTERM, signal.SIGKILL):
            process.send_signal(number)
            deadline = time.monotonic() + _EXIT_SECONDS
            while time.monotonic() < deadline:
                if process.status() == psutil.STATUS_ZOMBIE:
                    return
                time.sleep(0.05)
