"""Signals are requests to stop; which one holds where several come."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.contexts import make_context
from worker.context import INTERRUPT_SECONDS, SIGNALS, JobContext, StopRequest

CANCEL, SAVE, INTERRUPT = StopRequest.CANCEL, StopRequest.SAVE, StopRequest.INTERRUPT


@pytest.fixture
def context(tmp_path: Path) -> Iterator[JobContext]:
    """A context that listens; the handlers go with it."""
    before = {number: signal.getsignal(number) for number in SIGNALS.values()}
    context = make_context(tmp_path, "train", {})
    context.listen()
    yield context
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("asked", "holds"),
    [
        ([CANCEL], CANCEL),
        ([SAVE], SAVE),
        ([INTERRUPT], INTERRUPT),
        ([SAVE, INTERRUPT], SAVE),
        ([INTERRUPT, SAVE], INTERRUPT),
        ([SAVE, INTERRUPT, CANCEL], CANCEL),
        ([CANCEL, SAVE], CANCEL),
    ],
)
def test_a_cancel_outranks_the_others_of_which_the_first_holds(
    asked: list[StopRequest], holds: StopRequest, context: JobContext
) -> None:
    for request in asked:
        os.kill(os.getpid(), SIGNALS[request])
    assert context.stop_request is holds


def test_a_worker_that_stops_leaves_a_little_time_and_asking_again_no_more(
    context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert context.seconds_to_stop() == float("inf")
    os.kill(os.getpid(), SIGNALS[INTERRUPT])
    assert 0 < context.seconds_to_stop() < INTERRUPT_SECONDS
    began = context.stop_by
    later = time.monotonic() + 3
    monkeypatch.setattr("worker.context.time.monotonic", lambda: later)
    os.kill(os.getpid(), SIGNALS[INTERRUPT])
    assert context.stop_by == began
