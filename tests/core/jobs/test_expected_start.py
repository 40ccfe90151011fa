"""When a waiting job is expected to start."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import event

from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.expected_start import Start, expected_starts, next_start
from app.core.jobs.models import Job
from app.core.jobs.queue_state import pause_queue
from app.core.jobs.status import JobStatus
from app.core.models.models import BaseModel, ModelStatus

MakeJob = Callable[..., Job]


def _finish(database: Database, job: Job) -> None:
    """As a training on the four rows of the dataset ends: 10 tokens a row, 2 tokens a second."""
    with database.write() as session:
        for status in (JobStatus.STARTING, JobStatus.RUNNING):
            queue.advance(session, queue.get_job(session, job.key), status)
        summary = {"tokens_per_second": 2.0, "tokens": 40, "steps": 1}
        queue.advance(session, queue.get_job(session, job.key), JobStatus.COMPLETED, summary=summary)


def _run(database: Database, job: Job, eta_seconds: float | None) -> None:
    with database.write() as session:
        for status in (JobStatus.STARTING, JobStatus.RUNNING):
            queue.advance(session, queue.get_job(session, job.key), status, eta_seconds=eta_seconds)


def test_jobs_start_behind_what_runs_and_what_waits_before_them(database: Database, make_job: MakeJob) -> None:
    _finish(database, make_job(eval_fraction=0))
    _run(database, make_job(), eta_seconds=100.0)
    first, second = make_job(eval_fraction=0), make_job()
    with database.read() as session:
        starts, behind = expected_starts(session, now=1000.0), next_start(session, now=1000.0)
    assert starts == {first.key: Start(1100.0, known=True), second.key: Start(1120.0, known=True)}
    assert behind is not None
    assert behind.at > 1120.0


def test_what_takes_nobody_knows_how_long_is_a_start_no_sooner(database: Database, make_job: MakeJob) -> None:
    _run(database, make_job(), eta_seconds=None)
    waiting = make_job()
    with database.read() as session:
        assert expected_starts(session, now=1000.0) == {waiting.key: Start(1000.0, known=False)}


def test_nothing_is_expected_of_a_paused_queue_or_job(database: Database, make_job: MakeJob) -> None:
    paused, free = make_job(), make_job()
    with database.write() as session:
        session.get_one(Job, paused.key).paused = True
    with database.read() as session:
        assert list(expected_starts(session)) == [free.key]
    with database.write() as session:
        pause_queue(session)
    with database.read() as session:
        assert expected_starts(session) == {}
        assert next_start(session) is None


def test_a_job_whose_model_is_being_imported_holds_nobody_up(database: Database, make_job: MakeJob) -> None:
    waits = make_job()
    with database.write() as session:
        session.get_one(BaseModel, waits.base_model_id).status = ModelStatus.IMPORTING
    with database.read() as session:
        assert expected_starts(session) == {}
        assert next_start(session, now=5.0) == Start(5.0, known=True)


def test_a_long_queue_takes_no_more_queries_than_a_short_one(database: Database, make_job: MakeJob) -> None:
    _finish(database, make_job())
    counts = []
    for more in (2, 20):
        for _ in range(more):
            make_job()
        statements: list[str] = []
        event.listen(database.engine, "before_cursor_execute", lambda *given, kept=statements: kept.append(given[2]))
        with database.read() as session:
            assert len(expected_starts(session)) >= more
        counts.append(len(statements))
    assert counts[0] == counts[1] > 0


@pytest.mark.usefixtures("registered")
def test_an_empty_queue_starts_at_once(database: Database) -> None:
    with database.read() as session:
        assert next_start(session, now=7.0) == Start(7.0, known=True)
