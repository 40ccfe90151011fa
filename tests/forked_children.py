"""Children that are forked from a process with its imports done: real ones, without the third of a second to start.

Run as a module it is that process: it takes assignments one at a time, and says each child's pid, then its exit code.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import worker.datasets.uploaded  # noqa: F401 - what the children import
from worker.child import _send_output_to, run_assignment
from worker.context import Assignment

_PATIENCE_SECONDS = 30.0


class ForkedChildren:
    """In place of `worker.children.Children`; several threads may share one."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.forked_children"]
        self._parent = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent, bufsize=0
        )
        self._one_at_a_time = threading.Lock()

    def start(self, assignment: Assignment, *, record: Callable[[int], None], **_options: bool) -> Any:
        """As a Popen object as far as a supervisor asks; it is put on record once it works."""
        self._one_at_a_time.acquire()
        assert self._parent.stdin is not None
        self._parent.stdin.write(assignment.to_line().encode())
        child = _Child(self._parent, self._one_at_a_time)
        record(child.pid)
        return child

    def close(self) -> None:
        """End the process."""
        self._parent.communicate()


class _Child:
    def __init__(self, parent: subprocess.Popen[bytes], lock: threading.Lock) -> None:
        assert parent.stdout is not None
        self._said = parent.stdout
        self._lock = lock
        self.returncode: int | None = None
        self.pid = int(self._said.readline())

    def poll(self) -> int | None:
        return self.returncode if self.returncode is not None else self._look(0)

    def wait(self, timeout: float = _PATIENCE_SECONDS) -> int:
        code = self.returncode if self.returncode is not None else self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("forked child", timeout)
        return code

    def _look(self, seconds: float) -> int | None:
        if select.select([self._said], [], [], seconds)[0]:
            self.returncode = int(self._said.readline())
            self._lock.release()
        return self.returncode


def _fork_children() -> None:
    ended: int | None = None
    for line in sys.stdin:
        if ended is not None:
            os.waitpid(ended, 0)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            assignment = Assignment.from_line(line)
            _send_output_to(Path(assignment.log))
            os._exit(run_assignment(assignment))
        print(pid, flush=True)
        ended, how = pid, os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it stays to be looked at, as a Popen's
        assert how is not None
        print(how.si_status if how.si_code == os.CLD_EXITED else -how.si_status, flush=True)


if __name__ == "__main__":
    _fork_children()
