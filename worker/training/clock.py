"""Time spent training, without evaluating, saving and sampling."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class TrainingClock:
    """A stopwatch that can be paused. Starts when made, at the seconds that were trained before."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._started = time.perf_counter() - seconds
        self._paused_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the start, pauses left out; meant to be read outside of a pause."""
        return time.perf_counter() - self._started - self._paused_seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What runs inside does not count."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._paused_seconds += time.perf_counter() - began


def seconds_left(done: int, total: int, seconds: float) -> float | None:
    """Time for the steps that remain if they take as long as those that took `seconds`.

    None before the first and after the last: what follows it (an eval, saving, samples) takes time, too.
    """
    return round((total - done) * seconds / done, 1) if 0 < done < total else None
