"""The stages of an import: phase and progress for the job page, and the points where a cancel takes effect."""

from __future__ import annotations

from app.core.errors import JobCancelled
from worker.context import JobContext


class Stages:
    """Counts the finished stages of a job, each entered by name. The unit of progress is one stage."""

    def __init__(self, context: JobContext, total: int) -> None:
        self._context = context
        self._total = total
        self._finished = 0
        self._phase: str | None = None

    def enter(self, phase: str) -> None:
        """Begin a stage. Raises: JobCancelled where that was asked."""
        self.check_stop()
        if phase != self._phase:
            self._context.spool.phase(phase)
            self._phase = phase
        self._context.spool.progress(self._finished, self._total)
        self._finished += 1

    def extend(self, more: int) -> None:
        """Add stages that became known on the way."""
        self._total += more

    def finish(self) -> None:
        """All stages are done."""
        self._context.spool.progress(self._total, self._total)

    def check_stop(self) -> None:
        """An import has nothing to save early, so every stop request cancels. Raises: JobCancelled."""
        if self._context.stop_request is not None:
            raise JobCancelled()
