"""Limits on what a light child may take: memory for the whole process, seconds for a piece of foreign code."""

from __future__ import annotations

import resource
import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import psutil

from app.core.errors import JobError

LIGHT_MEMORY_BYTES = 1 << 30  # on top of what the process holds when the limit is set
ROWS_MEMORY_BYTES = 550 << 20  # for rows alone; the objects of one take up to thirty times its text
PATIENCE_SECONDS = 60.0  # without a word from a light child; then it is killed
_GRACE_SECONDS = 0.4  # of computing; then what cannot be broken off ends with its process


class TookTooLong(JobError):
    """It took longer than it may."""

    code = "took_too_long"


class MemoryLimit(JobError):
    """It needs more memory than it may have."""

    code = "memory_limit"


def limit_memory(growth_bytes: int = LIGHT_MEMORY_BYTES) -> None:
    """Let the process's private memory grow by so much from here on; what asks for more gets MemoryError.

    Counted are the heap and private mappings (RLIMIT_DATA), not files that are mapped. A limit that is set and lower
    stays. Source: getrlimit(2).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = int(psutil.Process().memory_info().data) + growth_bytes
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


@contextmanager
def limited(seconds: float, what: str = "It") -> Generator[None, None, None]:
    """Run the block for at most so many seconds of wall time, in the main thread; blocks do not nest.

    Python code is broken off between two of its steps. One long step in C, such as a sum over a long range, is not:
    SIGPROF ends the process a moment later, and `worker.settle` says why. Raises: TookTooLong that names `what`.
    """

    def give_up(_number: int, _frame: FrameType | None) -> NoReturn:
        raise TookTooLong(f"{what} did not end within {seconds:g} s.")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_PROF, seconds + _GRACE_SECONDS)  # of the processor's time
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
