"""What a child leaves of a job that failed: an outcome in the spool, and a log that a person can read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput
from tests.worker.contexts import make_context, read_records
from worker import child
from worker.context import JobContext


@pytest.fixture(autouse=True)
def _no_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobContext, "listen", lambda _self: None)


@pytest.mark.parametrize(
    ("error", "kind", "traced"),
    [
        (InvalidInput("is too small", field="r"), "invalid_input", False),
        (ValueError("too small"), "ValueError", True),
        (MemoryError("too small"), "memory_limit", True),
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
