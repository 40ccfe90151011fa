"""The queue pauses by hand or after a failure; what needs no GPU goes on."""

from __future__ import annotations

import pytest
from sqlmodel import Session

from app.core.events.log import read_after
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.queue_state import get_queue, pause_queue, resume_queue, set_on_failure
from app.core.jobs.status import JobKind, JobStatus, Lane, OnFailure


def _queued(session: Session, kind: JobKind = JobKind.TRAIN) -> Job:
    return queue.enqueue(session, Job(name=kind, kind=kind, created_at=0))


def test_a_paused_queue_starts_nothing_for_the_gpu(session: Session) -> None:
    jobs = [_queued(session, kind) for kind in (JobKind.TRAIN, JobKind.PLAYGROUND, JobKind.MERGE, JobKind.CHECK)]
    pause_queue(session)
    assert queue.claim_next(session, Lane.GPU) is None
    for lane, job in ((Lane.MERGE, jobs[-2]), (Lane.CHECK, jobs[-1])):
        claimed, _ = queue.claim_next(session, lane) or pytest.fail(f"nothing was claimed in the lane {lane}")
        assert claimed.id == job.id
    resume_queue(session)
    assert [queue.claim_next(session, Lane.GPU) is not None for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("on_failure", "kind", "end", "paused"),
    [
        (OnFailure.CONTINUE, JobKind.TRAIN, JobStatus.FAILED, False),
        (OnFailure.PAUSE, JobKind.TRAIN, JobStatus.FAILED, True),
        (OnFailure.PAUSE, JobKind.TRAIN, JobStatus.CANCELLED, False),
        (OnFailure.PAUSE, JobKind.TRAIN, JobStatus.COMPLETED, False),
        (OnFailure.PAUSE, JobKind.MERGE, JobStatus.FAILED, False),
    ],
)
def test_a_failed_training_pauses_the_queue_where_that_was_asked_for(
    session: Session, on_failure: OnFailure, kind: JobKind, end: JobStatus, paused: bool
) -> None:
    set_on_failure(session, on_failure)
    job = queue.advance(session, _queued(session, kind), JobStatus.STARTING)
    queue.advance(session, job, end)
    state = get_queue(session)
    assert state.paused is paused
    reason = {"kind": "failure", "message": "Job 1 (train) failed.", "job_id": 1}
    assert state.pause_reason == (reason if paused else None)


def test_a_queue_that_was_paused_by_hand_stays_so_by_hand(session: Session) -> None:
    set_on_failure(session, OnFailure.PAUSE)
    pause_queue(session)
    queue.advance(session, queue.advance(session, _queued(session), JobStatus.STARTING), JobStatus.FAILED)
    assert get_queue(session).pause_reason is None


def test_each_change_is_told(session: Session) -> None:
    pause_queue(session)
    set_on_failure(session, OnFailure.PAUSE)
    resume_queue(session)
    session.flush()
    events = [event for event in read_after(session, 0) if event.kind == EventKind.QUEUE]
    assert [event.job_id for event in events] == [None] * 3
    assert [(event.data["paused"], event.data["on_failure"]) for event in events] == [
        (True, "continue"), (True, "pause"), (False, "pause"),
    ]  # fmt: skip
