"""The queue: enqueue, claim, and every move of a job from one state to the next.

Each move is a compare-and-swap on status and fence inside a write transaction, and leaves an event in the same
transaction. Call these inside `Database.write()`.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import func, update
from sqlmodel import Session, col, select

from app.core.accounts.identity import acting
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.errors import Conflict, NotFound
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs.claims import CLAIM, find_next
from app.core.jobs.losses import LIMITS, Cause, lost_error, note_loss
from app.core.jobs.models import Attempt, Job
from app.core.jobs.queue_state import after_failure
from app.core.jobs.status import ACTIVE, ENDED, TRANSITIONS, JobKind, JobStatus, Lane
from app.core.models.models import BaseModel, ModelStatus
from app.core.table import MAX_ID

_IMPORT_AGAIN = "Press “Import again” on {} page"


def enqueue(session: Session, job: Job) -> Job:
    """Store a new job at the end of its priority's queue, as whoever acts; from here on the worker may claim it."""
    job.queued_by = acting.get().name
    job.position = last_position(session) + 1.0
    session.add(job)
    session.flush()
    announce(session, job)
    return job


def last_position(session: Session) -> float:
    """The last position of a job that waits, or works and may wait again; 0 where there is none."""
    return session.exec(select(func.max(Job.position)).where(col(Job.status).not_in(ENDED))).one() or 0.0


def claim_next(session: Session, lane: Lane = Lane.GPU) -> tuple[Job, Attempt] | None:
    """Take the lane's first job that can start: no other worker gets it."""
    found = find_next(session, lane)
    if found is None or session.execute(CLAIM, {"id": found, "now": time.time()}).first() is None:
        return None
    job = get_job(session, found)
    attempt = Attempt(job_id=job.key, number=job.attempts, fence=job.fence, started_at=time.time())
    session.add(attempt)
    session.flush()
    announce(session, job)
    return job, attempt


def get_job(session: Session, job_id: int) -> Job:
    """Raises: NotFound."""
    job = session.get(Job, job_id, populate_existing=True) if 0 < job_id <= MAX_ID else None
    if job is None:
        raise NotFound(f"There is no job {job_id}.")
    return job


def advance(session: Session, job: Job, to: JobStatus, **fields: Any) -> Job:
    """Move the job to `to`, if it is still where `job` says and no later claim has happened.

    Raises: Conflict, and nothing is changed.
    """
    if to not in TRANSITIONS[job.status]:
        raise Conflict(f"Job {job.id} is {job.status}; it cannot become {to}.")
    moved = session.execute(
        update(Job)
        .where(col(Job.id) == job.id, col(Job.status) == job.status, col(Job.fence) == job.fence)
        .values(status=to, **{**_left_behind(job, to), **fields})
    )
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        raise Conflict(f"Job {job.id} has moved on since it was read as {job.status}.")
    job = get_job(session, job.key)
    announce(session, job)
    if to in ENDED:
        _settle(session, job)
    return job


def _left_behind(job: Job, to: JobStatus) -> dict[str, Any]:
    """What no longer holds once no process works on the job; only training counts steps that say something later."""
    if to in ACTIVE:
        return {}
    idle: dict[str, Any] = {
        "phase": None,
        "eta_seconds": None,
        "save_now_requested": False,
        "sample_now_requested": False,
    }
    if to in ENDED:
        idle |= {"finished_at": time.time(), "paused": False, "pause_reason": None}
        idle |= {} if job.kind == JobKind.TRAIN else {"step": 0, "max_steps": None}
    return idle


def request_cancel(session: Session, job: Job, *, save: bool = False) -> Job:
    """Cancel at once where no process runs, else ask the worker to. Raises: Conflict for an ended job."""
    if job.status in ENDED:
        raise Conflict(f"Job {job.id} has already ended ({job.status}).")
    if job.status in (JobStatus.QUEUED, JobStatus.INTERRUPTED):
        return advance(session, job, JobStatus.CANCELLED, cancel_requested=True)
    fields = {"save_requested": True} if save else {"cancel_requested": True}
    session.execute(
        update(Job)
        .where(col(Job.id) == job.id, col(Job.status).in_(ACTIVE), col(Job.fence) == job.fence)
        .values(**fields)
    )
    return get_job(session, job.key)


def interrupt(
    session: Session, job: Job, cause: Cause = Cause.PROCESS_LOST, error: dict[str, Any] | None = None
) -> Job:
    """The job's process is gone through no fault of its own: queue it again, to go on from what it has saved.

    `error` is what is known of the loss. A job that is lost to the same cause too often fails in the end; one that was
    paused, or for which the disk is too full, is not claimed before it is resumed.
    """
    times = note_loss(session, job, cause)
    job = advance(session, job, JobStatus.INTERRUPTED)
    if job.cancel_requested:
        return advance(session, job, JobStatus.CANCELLED)
    if times >= LIMITS[cause].times:
        return advance(session, job, JobStatus.FAILED, error=lost_error(job, cause, times, error))
    if error is None:
        return advance(session, job, JobStatus.QUEUED)
    told = lost_error(job, cause, times, error)
    if cause is Cause.DISK_FULL:
        return advance(session, job, JobStatus.QUEUED, paused=True, pause_reason=told)
    return advance(session, job, JobStatus.QUEUED, error=told)


def move(session: Session, job: Job, to: int) -> Job:
    """Give a waiting job place `to` of the queue, from 1; beyond the end it goes last. Raises: Conflict.

    It takes the priority of the job it goes before (of the last one at the end), else its place would not hold.
    """
    if job.status != JobStatus.QUEUED:
        raise Conflict(f"Job {job.id} is {job.status}; only a queued job can be moved.")
    order = (col(Job.priority).desc(), col(Job.position), col(Job.id))
    waiting = select(Job).where(Job.status == JobStatus.QUEUED, Job.kind != JobKind.PREVIEW, Job.id != job.id)
    queue = list(session.exec(waiting.order_by(*order)).all())
    if queue:
        job.priority = queue[min(to, len(queue)) - 1].priority
    queue.insert(to - 1, job)
    for place, each in enumerate(queue, start=1):
        each.position = float(place)
    session.add_all(queue)
    session.flush()
    announce(session, job)
    return job


def announce(session: Session, job: Job) -> None:
    """One `status` event per move, and `finished` when nothing will follow unless somebody starts it again."""
    data = {"status": job.status.value, "name": job.name, "kind": job.kind.value, "error": job.error}
    log.append(session, EventKind.STATUS, {**data, "paused": job.paused}, job_id=job.id)
    if job.status in ENDED:
        log.append(session, EventKind.FINISHED, {**data, "summary": job.summary}, job_id=job.id)


def _settle(session: Session, job: Job) -> None:
    """What a failure means for the queue; and an import's end for what it was to bring, and for who waits for that."""
    after_failure(session, job)
    if job.kind != JobKind.IMPORT or job.status == JobStatus.COMPLETED:
        return
    if job.dataset_id is not None:
        dataset = session.get_one(Dataset, job.dataset_id)
        dataset.status, dataset.error = DatasetStatus.FAILED, _reason(job, with_advice=True)
        again = _IMPORT_AGAIN.format("its") if dataset.source.get("kind") == "hub" else "Upload the file again"
        _fail_waiting(session, job, Job.dataset_id == dataset.id, f"Dataset {dataset.name}", again)
    elif job.base_model_id is not None:
        model = session.get_one(BaseModel, job.base_model_id)
        model.status, model.error = ModelStatus.FAILED, _reason(job)
        again = _IMPORT_AGAIN.format("the Models")
        _fail_waiting(session, job, Job.base_model_id == model.id, f"Base model {model.name}", again)


def _reason(job: Job, *, with_advice: bool = False) -> str:
    error = job.error or {"message": f"its import was {job.status}"}
    return " ".join(filter(None, (error["message"], error.get("advice") if with_advice else None)))


def _fail_waiting(session: Session, job: Job, on_it: Any, what: str, again: str) -> None:
    waiting = select(Job).where(on_it, Job.status == JobStatus.QUEUED, Job.id != job.id)
    for other in session.exec(waiting).all():
        error = {
            "kind": "dataset_import" if job.dataset_id is not None else "model_import",
            "message": f"{what} is not available: {_reason(job)}",
            "advice": f"{again}, then submit this job again.",
        }
        advance(session, other, JobStatus.FAILED, error=error)
