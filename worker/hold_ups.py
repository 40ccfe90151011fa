"""What holds a running job up, as its page says it: a step that does not end, or a disk without room."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from app.core.jobs.models import Job
from worker.notes import read_wait

STALLED = "stalled"
STALLED_SECONDS = 120.0  # without a step, at the least
STALLED_STEPS = 10.0  # as many of the steps before would have taken no longer
FIRST_STEP_SECONDS = 600.0  # nobody knows how long one takes; kernels are chosen, caches filled
_LOOK_SECONDS = 1.0


class HoldUps:
    """Judges by the age of the step in hand, on the monotonic clock: a process that lives may hang all the same."""

    def __init__(self, attempt_folder: Path) -> None:
        self._folder = attempt_folder
        self._place: tuple[str | None, int] | None = None  # phase and step
        self._since = time.monotonic()
        self._step_seconds: float | None = None  # of the steps told last
        self._look_at = 0.0

    def find(self, job: Job) -> dict[str, Any] | None:
        """{kind, message, since}, or None; the same as the job has while nothing changes."""
        self._follow(job)
        if time.monotonic() < self._look_at:
            return job.held_up
        self._look_at = time.monotonic() + _LOOK_SECONDS
        found = read_wait(self._folder) or self._stall(job)
        if found is None or (job.held_up or {}).get("kind") == found["kind"]:
            return job.held_up if found else None
        return {**found, "since": time.time()}

    def _follow(self, job: Job) -> None:
        place, now = (job.phase, job.step), time.monotonic()
        if place == self._place:
            return
        if self._place is not None and self._place[0] == job.phase and job.step > self._place[1]:
            self._step_seconds = (now - self._since) / (job.step - self._place[1])
        self._place, self._since, self._look_at = place, now, 0.0

    def _stall(self, job: Job) -> dict[str, Any] | None:
        age = time.monotonic() - self._since
        if job.phase != "train" or age < self._patience():
            return None
        before = f"; the ones before took {self._step_seconds:.2g} s each" if self._step_seconds else ""
        return {
            "kind": STALLED,
            "message": f"Step {job.step + 1} has not ended for {self._patience():.0f} s{before}. Its process lives: it "
            "may hang, or wait for the device. It goes on as soon as it can; cancel it if it does not.",
        }

    def _patience(self) -> float:
        if self._step_seconds is None:
            return FIRST_STEP_SECONDS
        return max(STALLED_SECONDS, STALLED_STEPS * self._step_seconds)
