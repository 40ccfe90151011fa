"""The queue's own settings: whether jobs for the GPU start, and what follows a failure. What needs no GPU goes on."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs.models import Job, QueueState
from app.core.jobs.status import JobKind, JobStatus, OnFailure


def get_queue(session: Session) -> QueueState:
    """How the queue is set; where nothing was set yet, as it is from the start."""
    return session.get(QueueState, 1) or QueueState()


def pause_queue(session: Session, reason: dict[str, Any] | None = None) -> QueueState:
    """From now on no training and no answer on the GPU starts; what runs goes on. `reason`: {kind, message, job_id}."""
    state = get_queue(session)
    if not state.paused:
        state.paused, state.pause_reason = True, reason
    return _store(session, state)


def resume_queue(session: Session) -> QueueState:
    """Jobs start again."""
    state = get_queue(session)
    state.paused, state.pause_reason = False, None
    return _store(session, state)


def set_on_failure(session: Session, on_failure: OnFailure) -> QueueState:
    """What becomes of the queue once a training has failed."""
    state = get_queue(session)
    state.on_failure = on_failure
    return _store(session, state)


def after_failure(session: Session, job: Job) -> None:
    """A job has failed: pause the queue, if that is what is to follow a training's failure."""
    if job.kind != JobKind.TRAIN or job.status != JobStatus.FAILED:
        return
    if get_queue(session).on_failure == OnFailure.PAUSE:
        pause_queue(session, {"kind": "failure", "message": f"Job {job.id} ({job.name}) failed.", "job_id": job.id})


def _store(session: Session, state: QueueState) -> QueueState:
    session.add(state)
    session.flush()
    data = {"paused": state.paused, "pause_reason": state.pause_reason, "on_failure": state.on_failure.value}
    log.append(session, EventKind.QUEUE, data)
    return state
