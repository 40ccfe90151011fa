"""Tell a process from a later one that was given the same pid."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

_START_TOLERANCE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process for good: pids are used again, start times within one boot are not."""

    pid: int
    started_at: float
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Raises: psutil.NoSuchProcess."""
        return cls(pid, psutil.Process(pid).create_time(), boot_id())

    def find(self) -> psutil.Process | None:
        """The living process, or None where it has ended or the pid is a stranger's."""
        if self.boot_id != boot_id():
            return None
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_at) < _START_TOLERANCE_SECONDS
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def boot_id() -> str:
    """Changes with every boot of the machine (of the kernel, also inside a container)."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else f"boot-{psutil.boot_time():.0f}"


def end_process(identity: ProcessIdentity, timeout_seconds: float = 10.0) -> None:
    """Kill a stranded child and its group, and see it end. Raises: psutil.TimeoutExpired where it does not."""
    process = identity.find()
    if process is None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(timeout=timeout_seconds)
