"""Tell a process from a later one that was given the same pid."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from app.core.boot import boot_id
from app.core.jobs.models import Attempt

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAUSE_SECONDS = 0.02
_ENDED_STATES = frozenset("ZX")  # it only waits for a parent to ask how it ended


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process for good: pids are used again, but not with the same start within one boot.

    The start is in seconds since the boot, so that nobody who sets the clock makes a process look like another.
    """

    pid: int
    started_at: float
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Raises: ProcessLookupError where it is gone."""
        found = _look(pid)
        if found is None:
            raise ProcessLookupError(pid)
        return cls(pid, found[1], boot_id())

    @classmethod
    def of_attempt(cls, attempt: Attempt) -> ProcessIdentity | None:
        """The attempt's process; None where none is on record."""
        if attempt.pid is None or attempt.pid_started_at is None or attempt.boot_id is None:
            return None
        return cls(attempt.pid, attempt.pid_started_at, attempt.boot_id)

    def lives(self) -> bool:
        """Whether this very process runs; False where the pid is a stranger's by now."""
        if self.boot_id != boot_id():
            return False
        found = _look(self.pid)
        return found is not None and found[1] == self.started_at and found[0] not in _ENDED_STATES

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the process's group, if the process, which leads it, lives."""
        if self.lives():
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:  # it ended between the look and the signal
                return

    def wait(self, timeout_seconds: float) -> bool:
        """Returns whether the process has ended in time."""
        deadline = time.monotonic() + timeout_seconds
        while self.lives():
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_SECONDS)
        return True


def _look(pid: int) -> tuple[str, float] | None:
    """A process's state, and its start in seconds since the boot; None where there is none. Source: proc(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # behind the name, which may hold anything
    return fields[0], int(fields[19]) / _TICKS_PER_SECOND
