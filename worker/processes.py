"""The process that works on a job, as its supervisor deals with it: started by this worker, or by one before it."""

from __future__ import annotations

import signal
import subprocess
from typing import Protocol

from worker.children import kill_group
from worker.identity import ProcessIdentity


class JobProcess(Protocol):
    """One child. It has a process group of its own, and talks through files alone: no worker's end ends it."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def exit_code(self) -> int | None:
        """As `subprocess` has it; None while it runs, and where nobody can tell."""

    def has_ended(self) -> bool:
        """Whether it has come to its end."""

    def send(self, number: signal.Signals) -> None:
        """Signal its group, unless it has ended."""

    def wait(self, timeout_seconds: float) -> bool:
        """Returns whether it has ended in time."""


class OwnChild:
    """A process that this worker has started."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        kill_group(self._process, number)

    def wait(self, timeout_seconds: float) -> bool:
        try:
            self._process.wait(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


class AdoptedChild:
    """A process that an earlier worker has started: it is known by its identity, and its exit code to nobody."""

    exit_code = None

    def __init__(self, identity: ProcessIdentity) -> None:
        self._identity = identity

    @property
    def pid(self) -> int:
        return self._identity.pid

    def has_ended(self) -> bool:
        return not self._identity.lives()

    def send(self, number: signal.Signals) -> None:
        self._identity.signal_group(number)

    def wait(self, timeout_seconds: float) -> bool:
        return self._identity.wait(timeout_seconds)
