"""What pages and the API read of the queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlmodel import Session

from app.core.boot import boot_id
from app.core.jobs import queue
from app.core.jobs.listing import list_jobs
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.queries import (
    WORKER_ALIVE_SECONDS,
    active_job,
    latest_reading,
    likely_model_path,
    queue_position,
    queued_jobs,
    worker_view,
)
from app.core.jobs.status import JobKind, JobStatus, Lane
from app.core.models.models import BaseModel, ModelStatus

NOW = 1_000_000.0


def _job(session: Session, name: str, kind: JobKind = JobKind.TRAIN, **fields: Any) -> Job:
    return queue.enqueue(session, Job(name=name, kind=kind, created_at=time.time(), **fields))


def _worker(session: Session, seconds_ago: float) -> None:
    session.add(
        WorkerState(
            pid=7, pid_started_at=0, boot_id=boot_id(), version="v", started_at=0, heartbeat_at=NOW - seconds_ago,
            reading={"available": False},
        )
    )  # fmt: skip
    session.flush()


def test_pages_are_newest_first_and_know_how_many_there_are(session: Session) -> None:
    for number in range(5):
        _job(session, f"job {number}")
    first, last = list_jobs(session, size=2), list_jobs(session, size=2, page=3)
    assert [job.name for job in first.jobs] == ["job 4", "job 3"]
    assert [job.name for job in last.jobs] == ["job 0"]
    assert (first.total, first.last, last.number) == (5, 3, 3)
    assert list_jobs(session, size=2, page=4).jobs == []


def test_an_empty_queue_has_one_page(session: Session) -> None:
    assert (list_jobs(session).jobs, list_jobs(session).last) == ([], 1)


def test_answers_of_the_playground_are_listed_only_if_asked_for(session: Session) -> None:
    _job(session, "answer", JobKind.PLAYGROUND)
    _job(session, "training")
    assert [job.name for job in list_jobs(session).jobs] == ["training"]
    assert [job.name for job in list_jobs(session, kinds=[JobKind.PLAYGROUND]).jobs] == ["answer"]


@pytest.mark.parametrize(("search", "found"), [("100%", ["100% done"]), ("_x", ["a_x"]), ("DONE", ["100% done"])])
def test_search_takes_text_as_it_is(session: Session, search: str, found: list[str]) -> None:
    for name in ("100% done", "1000 begun", "a_x", "abx"):
        _job(session, name)
    assert [job.name for job in list_jobs(session, search=search).jobs] == found


def test_jobs_are_found_by_status(session: Session) -> None:
    queue.request_cancel(session, _job(session, "gone"))
    _job(session, "here")
    assert [job.name for job in list_jobs(session, status=JobStatus.CANCELLED).jobs] == ["gone"]


def test_the_queue_is_in_the_order_of_its_claims(session: Session) -> None:
    for name, priority in (("a", 0), ("b", 3), ("c", 0)):
        _job(session, name, priority=priority)
    waiting = queued_jobs(session)
    assert [job.name for job in waiting] == ["b", "a", "c"]
    assert [queue_position(session, job) for job in waiting] == [1, 2, 3]
    claimed, _ = queue.claim_next(session) or pytest.fail("nothing was claimed")
    assert queue_position(session, claimed) is None
    assert [queue_position(session, job) for job in queued_jobs(session)] == [1, 2]
    found = active_job(session)
    assert found is not None
    assert found.name == "b"


@pytest.fixture
def uptime(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the seconds since the boot; NOW at first."""

    def set_uptime(seconds: float) -> None:
        monkeypatch.setattr("app.core.jobs.queries.uptime_seconds", lambda: seconds)

    set_uptime(NOW)
    return set_uptime


def test_worker_is_alive_while_its_heartbeat_is_fresh(session: Session, uptime: Callable[[float], None]) -> None:
    nobody = {"alive": False, "pid": None, "heartbeat_age_seconds": None, "job_id": None, "capabilities": None}
    assert worker_view(session) == nobody
    assert latest_reading(session) is None
    _worker(session, seconds_ago=WORKER_ALIVE_SECONDS)
    assert worker_view(session) == {
        "alive": True, "pid": 7, "heartbeat_age_seconds": WORKER_ALIVE_SECONDS, "job_id": None,
        "capabilities": None,
    }  # fmt: skip
    assert latest_reading(session) == {"available": False}
    uptime(NOW + 1)
    assert worker_view(session)["alive"] is False
    assert latest_reading(session) is None, "a reading of a dead worker is no reading"


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_set_makes_no_worker_old(
    session: Session, monkeypatch: pytest.MonkeyPatch, uptime: Callable[[float], None], days: int
) -> None:
    _worker(session, seconds_ago=2)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + days * 86400)
    assert worker_view(session)["heartbeat_age_seconds"] == 2


def test_a_worker_of_an_earlier_boot_or_one_that_left_is_not_alive(
    session: Session, uptime: Callable[[float], None]
) -> None:
    _worker(session, seconds_ago=0)
    state = session.get_one(WorkerState, 1)
    for field, value in (("boot_id", "another"), ("heartbeat_at", 0.0)):
        before = getattr(state, field)
        setattr(state, field, value)
        assert (worker_view(session)["alive"], worker_view(session)["heartbeat_age_seconds"]) == (False, None)
        setattr(state, field, before)
    assert worker_view(session)["alive"]


def test_the_job_that_has_the_gpu_is_shown_before_an_import_and_never_a_preview(session: Session) -> None:
    preview = _job(session, "p", JobKind.PREVIEW)
    queue.claim_next(session, Lane.VIEW)
    assert (active_job(session), preview.status) == (None, "starting")
    check, training = _job(session, "c", JobKind.CHECK), _job(session, "t")
    queue.claim_next(session, Lane.CHECK)
    assert active_job(session) == check
    queue.claim_next(session, Lane.GPU)
    assert active_job(session) == training
    assert [job.name for job in list_jobs(session).jobs] == ["t", "c"]


def test_the_worker_shows_its_job(session: Session) -> None:
    _worker(session, seconds_ago=0)
    job = _job(session, "mine")
    queue.claim_next(session)
    assert worker_view(session)["job_id"] == job.id


def test_the_likely_model_is_that_of_the_last_training_else_the_newest(session: Session) -> None:
    assert likely_model_path(session) is None
    for name, status in [("a", ModelStatus.READY), ("b", ModelStatus.READY), ("c", ModelStatus.IMPORTING)]:
        session.add(BaseModel(name=name, status=status, path=f"/models/{name}", created_at=NOW))
    session.flush()
    assert likely_model_path(session) == "/models/b"
    _job(session, "trained", base_model_id=1)
    _job(session, "merged", JobKind.MERGE, base_model_id=2)
    assert likely_model_path(session) == "/models/a"
