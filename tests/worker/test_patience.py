"""Waiting for memory: said on the job's page, ended by a cancel, and not begun where it is in vain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from app.core.errors import JobCancelled
from tests.worker.contexts import make_context
from worker import patience
from worker.context import JobContext, StopRequest
from worker.notes import read_wait
from worker.patience import TooLarge, wait_for_memory

GB = 10**9


@pytest.fixture
def context(tmp_path: Path) -> JobContext:
    return make_context(tmp_path, "merge", {})


def offer(monkeypatch: pytest.MonkeyPatch, *free: int, meanwhile: Callable[[], Any]) -> None:
    """So much memory is free at each look; `meanwhile` is called between two."""
    looks = iter(free)
    memory = [SimpleNamespace(total=16 * GB, available=each) for each in looks]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory.pop(0) if len(memory) > 1 else memory[0])
    monkeypatch.setattr(patience.time, "sleep", lambda _seconds: meanwhile())


def test_it_waits_until_there_is_room_and_says_so(context: JobContext, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, Any] | None] = []
    folder = Path(context.assignment.spool).parent
    offer(monkeypatch, 2 * GB, 2 * GB, 3 * GB, 9 * GB, meanwhile=lambda: said.append(read_wait(folder)))
    wait_for_memory(context, 8 * GB, "It")
    assert [each and each["kind"] for each in said] == ["memory", "memory"]
    assert [each and each["message"] for each in said] == [
        f"It takes about 8.0 GB of memory; {free} GB are free. The job waits, and goes on as soon as there is room."
        for free in ("2.0", "3.0")
    ]
    assert read_wait(folder) is None


def test_where_there_is_room_nothing_is_said(context: JobContext, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, 9 * GB, meanwhile=lambda: pytest.fail("it waits"))
    wait_for_memory(context, 8 * GB, "It")


@pytest.mark.parametrize("request_", [StopRequest.CANCEL, StopRequest.INTERRUPT])
def test_it_can_be_cancelled(request_: StopRequest, context: JobContext, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, 2 * GB, meanwhile=lambda: setattr(context, "stop_request", request_))
    with pytest.raises(JobCancelled):
        wait_for_memory(context, 8 * GB, "It")


def test_a_machine_that_never_has_as_much_refuses(context: JobContext, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, 9 * GB, meanwhile=lambda: pytest.fail("it waits"))
    with pytest.raises(TooLarge, match=r"It takes about 20\.0 GB of memory; this machine has 16\.0 GB") as caught:
        wait_for_memory(context, 20 * GB, "It")
    assert caught.value.advice == "Run it on one that has more."
