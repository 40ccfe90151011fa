"""What a child leaves of a job that failed: an outcome in the spool, and a log that a person can read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput, JobCancelled
from tests.worker.contexts import Ids, make_context, read_records
from worker import child
from worker.context import JobContext
from worker.in_hand import Origins, read_in_hand


@pytest.fixture(autouse=True)
def _no_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobContext, "listen", lambda _self: None)


@pytest.mark.parametrize(
    ("error", "kind", "traced"),
    [
        (InvalidInput("is too small", field="r"), "invalid_input", False),
        (ValueError("too small"), "ValueError", True),
        (MemoryError("too small"), "host_out_of_memory", True),
    ],
)
def test_a_failure_is_logged_with_its_traceback_only_where_nobody_expected_it(
    error: Exception,
    kind: str,
    traced: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_context: JobContext) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(child, "find_job_function", lambda _kind: fail)
    context = make_context(tmp_path, "train", {})
    with caplog.at_level(logging.ERROR):
        assert child.run_assignment(context.assignment) == 1
    (record,) = caplog.records
    assert "too small" in record.getMessage()
    assert (record.exc_info is not None) is traced
    assert read_records(context)[-1].data["error"]["kind"] == kind


def test_memory_that_a_light_child_asks_for_is_refused_by_its_own_limit() -> None:
    assert child.describe_error(MemoryError(), light=True)["kind"] == "memory_limit"
    assert child.describe_error(MemoryError())["kind"] == "host_out_of_memory"


def test_a_full_disk_is_told_though_nobody_had_asked_for_room() -> None:
    told = child.describe_error(OSError(28, "No space left on device", "/data/jobs/1/x"))
    assert told["kind"] == "disk_full"
    assert "/data/jobs/1/x" in told["message"]
    assert "Delete old jobs" in told["advice"]


def test_a_log_that_a_full_disk_does_not_take_costs_no_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Path("/dev/full").open("w")  # noqa: SIM115 - a close would write once more
    log.write("a last line")
    monkeypatch.setattr(child, "find_job_function", lambda _kind: lambda _context: {"steps": 4})
    monkeypatch.setattr("sys.stdout", log)
    context = make_context(tmp_path, "train", {})
    assert child.run_assignment(context.assignment) == 0
    monkeypatch.undo()
    with pytest.raises(OSError, match="No space left"):
        log.close()
    assert read_records(context)[-1].data["outcome"] == "completed"


def test_a_lack_of_memory_is_told_with_the_batch_that_was_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(context: JobContext) -> dict[str, Any]:
        context.in_hand.take(7, {"origins": Origins((3, 9), (5, 8)), "tokens": 13, "input_ids": Ids(16)})
        raise MemoryError("no room")

    monkeypatch.setattr(child, "find_job_function", lambda _kind: fail)
    context = make_context(tmp_path, "train", {})
    assert child.run_assignment(context.assignment) == 1
    error = read_records(context)[-1].data["error"]
    assert (error["kind"], error["message"]) == ("host_out_of_memory", "no room.")
    autopsy = error["autopsy"]
    assert (autopsy["memory"], autopsy["reason"]) == ("host", "no room")
    assert autopsy["batch"] == read_in_hand(tmp_path)
    assert autopsy["batch"]["longest"] == [[9, 8], [3, 5]]


def test_another_failure_has_no_autopsy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "find_job_function", lambda _kind: {}["nothing"])
    context = make_context(tmp_path, "train", {})
    assert child.run_assignment(context.assignment) == 1
    assert "autopsy" not in read_records(context)[-1].data["error"]


def test_what_nobody_expected_comes_with_what_to_do() -> None:
    assert "end of the job's log says where it happened" in child.describe_error(KeyError("x"))["advice"]


def test_a_stop_that_saved_tells_what_it_came_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_context: JobContext) -> dict[str, Any]:
        raise JobCancelled(summary={"steps": 4})

    monkeypatch.setattr(child, "find_job_function", lambda _kind: stop)
    context = make_context(tmp_path, "train", {})
    assert child.run_assignment(context.assignment) == 0
    assert read_records(context)[-1].data == {"outcome": "cancelled", "summary": {"steps": 4}, "error": None}
