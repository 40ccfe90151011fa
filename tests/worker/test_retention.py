"""The worker keeps the database small while it works: by rule, in short transactions, and again after a restart."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import func, text
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from app.core.database import Database
from app.core.errors import DatabaseDamaged
from app.core.events.log import append
from app.core.events.models import Event
from app.core.events.types import EventKind
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.status import JobKind, JobStatus
from app.core.metrics.models import MemoryReading
from app.core.settings import Settings
from worker import readings, retention
from worker.gpu import Sampler
from worker.readings import ReadingsThread
from worker.retention import Retention, RetentionThread, Rules

NOW = 1_000_000.0
RULES = Rules(to_ten_seconds=100, to_a_minute=400, gpu_events=100, job_events=100)
DATA = {"available": True, "devices": [{"index": 0, "vram_used_bytes": 5}], "host": None}


@pytest.fixture
def aged(database: Database) -> Database:
    """Twenty minutes of readings of a job that ended, and of one that runs."""
    with database.write() as session:
        for number, status in enumerate((JobStatus.COMPLETED, JobStatus.RUNNING)):
            job = enqueue(session, Job(name="x", kind=JobKind.TRAIN, created_at=0))
            job.status, job.finished_at = status, NOW - 600 if status == JobStatus.COMPLETED else None
            for age in range(1200 - 600 * number, 600 - 600 * number, -1):
                session.add(MemoryReading(job_id=job.key, time=NOW - age, data=DATA))
                append(session, EventKind.GPU, {}, job_id=job.key, at=NOW - age)
                append(session, EventKind.METRIC, {"loss": 1.0}, job_id=job.key, at=NOW - age)
    return database


def catch_up(database: Database, rules: Rules = RULES) -> int:
    worker, steps = Retention(database, rules), 0
    while worker.step(NOW):
        steps += 1
        assert steps < 1000
    return steps


def counts(database: Database) -> tuple[dict[int, int], dict[str, int]]:
    with database.read() as session:
        readings = session.exec(select(MemoryReading.seconds, func.count()).group_by(text("1"))).all()
        events = session.exec(select(Event.kind, func.count()).group_by(text("1"))).all()
    return dict(readings), dict(events)


def test_every_rule_is_applied_and_then_rests(aged: Database) -> None:
    catch_up(aged)
    readings, events = counts(aged)
    assert (readings[1], readings[10]) == (100, 30)
    assert 14 <= readings[60] <= 16
    assert (events["gpu"], events["metric"], events["status"]) == (100, 600, 2)
    assert catch_up(aged) <= 1  # a worker that starts anew looks at the ended job once, and finds nothing
    assert counts(aged) == (readings, events)


def test_ages_are_those_of_the_settings(aged: Database, settings: Settings) -> None:
    before = counts(aged)
    catch_up(aged, Rules.of(settings))
    assert counts(aged)[0] == before[0]  # twenty minutes are less than an hour
    assert counts(aged)[1]["gpu"] == 600  # and more than ten minutes
    given = {"keep_readings_hours": 0.2, "keep_readings_days": 2, "keep_gpu_events_minutes": 5, "keep_events_days": 3}
    rules = Rules.of(settings.model_copy(update=given))
    assert rules == Rules(to_ten_seconds=720, to_a_minute=172_800, gpu_events=300, job_events=259_200)


def test_a_failed_transaction_changes_nothing(aged: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    before = counts(aged)

    def fail(*_arguments: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("app.core.metrics.rollup.merge", fail)
    with pytest.raises(RuntimeError):
        Retention(aged, RULES).step(NOW)
    assert counts(aged) == before


def test_the_thread_goes_on_after_a_locked_database(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retention, "INTERVAL_SECONDS", 0.01)
    steps: list[float] = []

    class Locked(Retention):
        def step(self, now: float) -> bool:
            steps.append(now)
            if len(steps) == 1:
                raise OperationalError("", {}, Exception("database is locked"))
            return len(steps) == 2

    thread = RetentionThread(Locked(database, RULES))
    thread.start()
    _wait_until(lambda: len(steps) >= 4)
    thread.stop()
    assert not thread.is_alive()
    assert "wait" in caplog.text
    assert steps == sorted(steps)


@pytest.mark.parametrize("kind", ["retention", "readings"])
def test_threads_end_with_a_damaged_database(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """An exception that nobody handles would be an error of this test."""
    for module in (retention, readings):
        monkeypatch.setattr(module, "INTERVAL_SECONDS", 0.01)
    database.damage = DatabaseDamaged()
    if kind == "retention":
        thread: Thread = RetentionThread(Retention(database, RULES))
    else:
        thread = ReadingsThread(database, Sampler(tmp_path))
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive()


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
