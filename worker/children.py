"""Start child processes, and keep one spare with its imports done."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from app.core.secrets import SECRETS
from worker.child import SPARE_FLAG
from worker.context import Assignment

logger = logging.getLogger(__name__)

CHILD_COMMAND = (sys.executable, "-m", "worker.child")


class Children:
    """Hands out processes that wait for an assignment, each with a process group of its own."""

    def __init__(
        self,
        *,
        keep_spare: bool,
        log: Path,
        command: Sequence[str] = CHILD_COMMAND,
        likely_model: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self._command = command
        self._keep_spare = keep_spare
        self._log = log  # of a spare, until it has a job and writes to that job's log
        self._likely_model = likely_model  # the folder of the one that a next job may train, for a spare to load
        self._spare: subprocess.Popen[str] | None = None

    def ready_spare(self) -> None:
        """See to it that a spare waits, where one is wanted."""
        if self._spare is not None and self._spare.poll() is not None:
            logger.warning("the spare child ended with code %s; see %s", self._spare.returncode, self._log)
            self._keep_spare = False  # its imports fail: say so once, and let the next job report it
            self._spare = None
        if self._keep_spare and self._spare is None:
            model = self._likely_model()
            self._spare = self._spawn(self._log, SPARE_FLAG, *([str(model)] if model else []))

    def start(
        self, assignment: Assignment, *, cold: bool = False, record: Callable[[int], None] = lambda _pid: None
    ) -> subprocess.Popen[str]:
        """A child that works on the assignment: the spare if it is there, else a new one; a `cold` one is always new.

        `record` is called with its pid before it is told what to do; a child that is told nothing ends.

        Raises: OSError.
        """
        log = Path(assignment.log)
        child = None if cold else self._take_spare()
        if child is None or child.poll() is not None:
            child = self._spawn(log)
        try:
            self._hand_over(child, assignment, record)
        except BrokenPipeError:  # it ended between the look above and the writing
            child.wait()
            child = self._spawn(log)
            self._hand_over(child, assignment, record)
        return child

    def _take_spare(self) -> subprocess.Popen[str] | None:
        spare, self._spare = self._spare, None
        return spare

    def end_spare(self) -> None:
        """Close the spare's input, which ends it; in mid-import it is killed."""
        if self._spare is not None:
            kill_group(self._spare, signal.SIGKILL)
            self._spare.communicate()
            self._spare = None

    def _spawn(self, log_path: Path, *flags: str) -> subprocess.Popen[str]:
        with log_path.open("ab") as log:
            return subprocess.Popen(
                [*self._command, *flags],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
                env=_environment(),
            )

    @staticmethod
    def _hand_over(child: subprocess.Popen[str], assignment: Assignment, record: Callable[[int], None]) -> None:
        if child.stdin is None:
            raise OSError("the child has no standard input")
        with child.stdin as pipe:
            record(child.pid)
            pipe.write(assignment.to_line())


def _environment() -> dict[str, str]:
    """Without secrets: a child is told those that its job needs."""
    secret = {variable for variable, _purpose in SECRETS.values()}
    kept = {name: value for name, value in os.environ.items() if name not in secret}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def kill_group(child: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signal the child's process group, if the child has not been reaped."""
    if child.poll() is None:
        os.killpg(child.pid, number)
