"""`loradeck datasets add FILE` where the check of its rows takes longer than the dashboard waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select

from app.core.boot import boot_id, uptime_seconds
from app.core.database import Database
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.queue import get_job, request_cancel
from app.core.jobs.status import JobKind
from tests.cli.conftest import Command
from tests.data_lane import DataLane

GOOD = '{"prompt": "Q", "completion": "A"}\n'
Wait = Callable[[float], None]


@pytest.fixture
def lane(data_lane: DataLane, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataLane]:
    """The server answers at once, that the check is still to come; a worker is alive."""
    monkeypatch.setattr("app.cli.datasets._POLL_SECONDS", 0.02)
    monkeypatch.setattr("app.cli.datasets._WAIT_SECONDS", 0)
    _beat(database, uptime_seconds())
    data_lane.paused = True
    yield data_lane
    data_lane.paused = False
    with database.write() as session:
        session.delete(session.get_one(WorkerState, 1))


def _beat(database: Database, at: float) -> None:
    with database.write() as session:
        state = WorkerState(pid=1, pid_started_at=0, boot_id=boot_id(), version="", started_at=0, heartbeat_at=at)
        session.merge(state)


def _later(action: Callable[[], Any]) -> threading.Timer:
    timer = threading.Timer(0.3, action)
    timer.start()
    return timer


def test_it_waits_until_the_rows_are_checked(loradeck: Command, lane: DataLane, tmp_path: Path) -> None:
    path = tmp_path / "waited.jsonl"
    path.write_text(GOOD)
    _later(lambda: setattr(lane, "paused", False))
    result = loradeck("datasets", "add", path, "--json")
    assert (result.code, result.json["rows"], result.json["status"]) == (0, 1, "ready")
    assert "its rows are still being checked" in result.err


def test_rows_of_no_use_exit_with_2_and_leave_nothing(loradeck: Command, lane: DataLane, tmp_path: Path) -> None:
    path = tmp_path / "spoiled.jsonl"
    path.write_text(GOOD + "{oops\n")
    _later(lambda: setattr(lane, "paused", False))
    result = loradeck("datasets", "add", path, "--json")
    assert (result.code, result.json["error"]["faults"][0]["field"]) == (2, "file")
    assert "error: file: row 2: is not valid JSON" in result.err
    assert "spoiled" not in loradeck("datasets", "list").out


def test_a_cancel_and_a_missing_worker_exit_with_1(
    loradeck: Command, lane: DataLane, database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "gone.jsonl"
    path.write_text(GOOD)

    def cancel() -> None:
        with database.write() as session:
            imports = select(Job.id).where(Job.kind == JobKind.IMPORT).order_by(col(Job.id).desc())
            request_cancel(session, get_job(session, session.exec(imports).first() or 0))

    _later(cancel)
    result = loradeck("datasets", "add", path)
    assert (result.code, result.out) == (1, "")
    assert "error: The import of the file was cancelled" in result.err
    _beat(database, 0.0)
    result = loradeck("datasets", "add", path)
    assert result.code == 1
    assert "error: gone is stored, but no worker is running to check its rows.\n  Start one with" in result.err


def test_no_wait_returns_at_once(loradeck: Command, lane: DataLane, tmp_path: Path) -> None:
    path = tmp_path / "unwaited.jsonl"
    path.write_text(GOOD)
    result = loradeck("datasets", "add", path, "--no-wait", "--json")
    assert (result.code, result.json["status"], result.err) == (0, "importing", "")
