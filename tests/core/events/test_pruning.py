"""Dropping events by rule: never those of a job that has not ended, and none that a page needs."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import Session

from app.core.events import pruning
from app.core.events.log import append, pruned_through, read_after
from app.core.events.pruning import find_ended, prune_job, prune_readings
from app.core.events.types import EventKind
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.status import JobKind, JobStatus
from app.jobs.view import LOG_TAIL_EVENTS

TOLD = (EventKind.PHASE, EventKind.PROGRESS, EventKind.METRIC, EventKind.LOG, EventKind.SAMPLE, EventKind.ARTIFACT)


def job(session: Session, status: JobStatus, finished_at: float | None) -> int:
    made = enqueue(session, Job(name="x", kind=JobKind.TRAIN, created_at=0))
    made.status, made.finished_at = status, finished_at
    for kind in TOLD:
        append(session, kind, {"n": 1}, job_id=made.key, at=1.0)
    session.flush()
    return made.key


def kinds(session: Session, job_id: int) -> list[str]:
    return [event.kind for event in read_after(session, 0, job_id=job_id)]


def test_of_a_job_that_ended_long_ago_goes_what_is_told_elsewhere(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "LOG_EVENTS_KEPT", 1)
    job_id = job(session, JobStatus.COMPLETED, 50.0)
    append(session, EventKind.LOG, {"lines": ["last"]}, job_id=job_id)
    session.flush()
    assert prune_job(session, job_id, before=100.0) == 4
    assert kinds(session, job_id) == ["status", "sample", "artifact", "log"]
    assert pruned_through(session) == 5  # the older log line; what lies behind is whole
    assert prune_job(session, job_id, before=100.0) == 0


def test_the_log_lines_that_a_page_shows_stay() -> None:
    assert pruning.LOG_EVENTS_KEPT >= LOG_TAIL_EVENTS


@pytest.mark.parametrize(
    ("status", "finished_at"),
    [
        (JobStatus.RUNNING, None),
        (JobStatus.RUNNING, 50.0),  # started again after its end
        (JobStatus.QUEUED, 50.0),
        (JobStatus.INTERRUPTED, None),
        (JobStatus.COMPLETED, 150.0),
    ],
)
def test_a_job_that_runs_or_ended_lately_keeps_all(
    session: Session, status: JobStatus, finished_at: float | None
) -> None:
    job(session, JobStatus.COMPLETED, 10.0)
    job_id = job(session, status, finished_at)
    assert prune_job(session, job_id, before=100.0) == 0
    assert kinds(session, job_id) == ["status", *(kind.value for kind in TOLD)]
    assert pruned_through(session) == 0


def test_jobs_are_gone_through_by_the_time_of_their_end(session: Session) -> None:
    for finished_at in (30.0, None, 10.0, 30.0, 200.0):
        job(session, JobStatus.FAILED if finished_at else JobStatus.RUNNING, finished_at)
    found, seen = find_ended(session, (0.0, 0), before=100.0), []
    while found is not None:
        seen.append(found)
        found = find_ended(session, found, before=100.0)
    assert seen == [(10.0, 3), (30.0, 1), (30.0, 4)]


def test_readings_go_by_age_a_few_at_a_time(session: Session) -> None:
    for at in range(10):
        append(session, EventKind.LOG, {}, at=float(at), job_id=1)
        append(session, EventKind.GPU, {}, at=float(at), job_id=1)
    session.flush()
    assert [prune_readings(session, before=7.0, limit=5) for _ in range(3)] == [5, 2, 0]
    assert [event.time for event in read_after(session, 0) if event.kind == "gpu"] == [7.0, 8.0, 9.0]
    assert [event.kind for event in read_after(session, 0)].count("log") == 10
    assert pruned_through(session) == 0


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (pruning._OLD_READINGS, {"before": 1.0, "limit": 5}, "ix_event_gpu_time"),
        (pruning._ENDED, {"after_time": 0.0, "after_id": 0, "before": 1.0}, "ix_job_finished_at"),
        (pruning._OF_ENDED_JOB, {"job_id": 1, "before": 1.0, "limit": 5, "kept": 2}, "ix_event_job_id_"),
    ],
)
def test_no_rule_reads_the_whole_log(session: Session, statement: Any, values: dict[str, Any], index: str) -> None:
    plan = [row[-1] for row in session.execute(text(f"EXPLAIN QUERY PLAN {statement.text}"), values)]
    assert any(index in step for step in plan), plan
    assert not [step for step in plan if step.startswith("SCAN") and "SUBQUERY" not in step and index not in step], plan
