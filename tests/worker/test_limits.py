"""What light children may not do: take too long, or too much memory."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from worker.child import _memory_for
from worker.context import Assignment
from worker.limits import ROWS_MEMORY_BYTES, TookTooLong, limited

HOLD = 300 << 20
GREEDY = f"""
import psutil, resource
from worker.limits import limit_memory

limit_memory(64 << 20)
try:
    held = bytearray({HOLD})
except MemoryError:
    limit_memory(1 << 40)  # what is set stays
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] < 2 * {HOLD}
    print("refused", psutil.Process().memory_info().rss < {HOLD})
"""
STUBBORN = """
from worker.limits import limited

with limited(0.2):
    sum(range(10 ** 13))
"""


def test_what_takes_too_long_is_broken_off_and_named() -> None:
    begin = time.monotonic()
    with pytest.raises(TookTooLong, match=r"The chat template did not end within 0\.2 s"):
        _run_for_ever()
    assert time.monotonic() - begin < 5
    assert signal.getitimer(signal.ITIMER_REAL) == signal.getitimer(signal.ITIMER_PROF) == (0, 0)


@limited(0.2, "The chat template")
def _run_for_ever() -> None:
    while True:
        sum(range(1000))


def test_what_ends_in_time_is_left_alone() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    with limited(60):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 50
    assert signal.getsignal(signal.SIGALRM) == handler


def test_a_step_that_cannot_be_broken_off_ends_with_its_process() -> None:
    child = subprocess.run([sys.executable, "-c", STUBBORN], timeout=60, check=False)
    assert child.returncode == -signal.SIGPROF


def test_memory_beyond_the_limit_is_refused_not_taken() -> None:
    child = subprocess.run([sys.executable, "-c", GREEDY], capture_output=True, text=True, timeout=60, check=False)
    assert (child.stdout, child.stderr) == ("refused True\n", "")


def test_a_check_of_rows_alone_may_take_less_than_one_that_loads_a_tokenizer() -> None:
    def memory_of(kind: str, base_model: dict[str, str] | None) -> int:
        return _memory_for(Assignment(1, kind, 1, "", "", "", {"base_model": base_model}, light=True))

    model = {"name": "tiny", "path": "/tiny"}
    assert memory_of("check", None) == ROWS_MEMORY_BYTES < memory_of("check", model) == memory_of("preview", model)
