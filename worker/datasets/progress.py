"""What a job that reads a data file tells on its way: how far it is, and what it has found already."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from app.core.datasets.reader import Place
from app.core.errors import JobCancelled
from worker.context import JobContext

Item = TypeVar("Item")

_ROWS_BETWEEN_LOOKS = 64
_FIRST_PAUSE_SECONDS = 0.05  # what is wrong with a file is often wrong with its first rows
_LONGEST_PAUSE_SECONDS = 0.5


class Progress:
    """Spools the place in the file and what `found` says, where that has changed: soon at first, then twice a second.

    A job's progress then counts bytes of a text file, rows of a Parquet file.
    """

    def __init__(self, context: JobContext, place: Place, found: Callable[[], dict[str, Any]] = dict) -> None:
        self._context = context
        self._place = place
        self._found = found
        self._told: dict[str, Any] = {}
        self._began = time.monotonic()
        self._report_at = self._began
        self._pause = _FIRST_PAUSE_SECONDS

    def watch(self, rows: Iterable[Item]) -> Generator[Item, None, None]:
        """The rows; reports between them. Raises: JobCancelled where that was asked."""
        for number, row in enumerate(rows):
            if number % _ROWS_BETWEEN_LOOKS == 0:
                self._look()
            yield row

    def finish(self) -> None:
        """All rows are read; the file is closed."""
        self._context.spool.progress(self._place.total, self._place.total or None)

    def report(self) -> None:
        """Tell where it stands in the open file."""
        found = self._found()
        if found != self._told:
            self._context.spool.summary(found)
            self._told = found
        done, total = self._place.done, self._place.total
        self._context.spool.progress(done, total or None, self._eta(done, total))

    def _look(self) -> None:
        if self._context.stop_request is not None:
            raise JobCancelled()
        if time.monotonic() >= self._report_at:
            self.report()
            self._report_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    def _eta(self, done: int, total: int) -> float | None:
        """Seconds, as fast as it went so far."""
        return (time.monotonic() - self._began) * (total - done) / done if 0 < done <= total else None
