"""How long it takes until what was hit goes on: measured from outside, by database and processes alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from app.core.jobs.models import Job
from app.core.jobs.status import ENDED, JobStatus
from chaos.stack import Stack

LIMIT_SECONDS = 60.0
_LOOK_EVERY_SECONDS = 0.1


@dataclass(slots=True)
class Hit:
    """A job whose processes were hit at `struck`; what is waited for counts from `at`. Both by the monotonic clock."""

    job_id: int
    at: float
    struck: float


@dataclass(slots=True)
class Recovery:
    """Jobs that were hit. One goes on once it has ended, or a process works on it and a worker says that it lives."""

    stack: Stack
    seconds: list[float] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    _open: dict[int, Hit] = field(default_factory=dict)
    _looked_at: float = 0.0

    def hit(self, job: Job) -> None:
        """Its process, or the worker that supervises it, has just been killed; the last hit counts."""
        self._open[job.key] = Hit(job.key, time.monotonic(), time.monotonic())

    def postpone(self) -> None:
        """A fault that kept everything waiting has just gone: from now on it counts."""
        for hit in self._open.values():
            hit.at = time.monotonic()

    def look(self) -> bool:
        """Take note of what goes on again. Returns whether all does."""
        now = time.monotonic()
        if not self._open or now - self._looked_at < _LOOK_EVERY_SECONDS:
            return not self._open
        self._looked_at = now
        for hit in list(self._open.values()):
            if self._goes_on(hit):
                self.seconds.append(now - hit.at)
                del self._open[hit.job_id]
            elif now - hit.at > LIMIT_SECONDS:
                self.late.append(f"job {hit.job_id} did not go on within {LIMIT_SECONDS:.0f} s")
                del self._open[hit.job_id]
        return not self._open

    def _goes_on(self, hit: Hit) -> bool:
        with self.stack.database.read() as session:
            job = session.get_one(Job, hit.job_id)
        if job.status in ENDED:
            return True
        busy = job.status in (JobStatus.RUNNING, JobStatus.STOPPING) and self.stack.find_child(job) is not None
        return busy and self.stack.worker_beat_since(hit.struck)
