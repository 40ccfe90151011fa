"""Read the queue."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import and_, case, func, or_
from sqlmodel import Session, col, select

from app.core.boot import boot_id, uptime_seconds
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.status import ACTIVE, GPU_KINDS, JobKind, JobStatus
from app.core.models.models import BaseModel, ModelStatus

WORKER_ALIVE_SECONDS = 10.0  # a heartbeat is written every second
LISTED_KINDS = (JobKind.TRAIN, JobKind.MERGE, JobKind.EXPORT, JobKind.ADAPTER, JobKind.IMPORT, JobKind.CHECK)
_NO_PREVIEW = col(Job.kind) != JobKind.PREVIEW  # those have a lane of their own, and are gone in a moment
_BESIDE = (JobKind.IMPORT, JobKind.CHECK, JobKind.MERGE, JobKind.EXPORT, JobKind.ADAPTER)
ON_CPU = and_(col(Job.kind) == JobKind.PLAYGROUND, func.json_extract(Job.spec, "$.device") == "cpu")  # see claims
_GPU_FIRST = case((or_(col(Job.kind).in_(_BESIDE), func.coalesce(ON_CPU, 0)), 1), else_=0)


def active_job(session: Session) -> Job | None:
    """The job that has the GPU now; where none has, one that runs beside it, such as a merge."""
    return next(iter(active_jobs(session)), None)


def active_jobs(session: Session) -> Sequence[Job]:
    """Every job that has a process, previews left out; the one that has the GPU first."""
    active = select(Job).where(col(Job.status).in_(ACTIVE), _NO_PREVIEW)
    return session.exec(active.order_by(_GPU_FIRST, col(Job.id))).all()


def gpu_occupant(session: Session, besides: Job | None = None) -> Job | None:
    """The job that has the GPU's lane, unless it is a chat that waits for a question: that one makes room."""
    active = select(Job).where(col(Job.status).in_(ACTIVE), col(Job.kind).in_(GPU_KINDS), func.coalesce(ON_CPU, 0) == 0)
    jobs = session.exec(active.order_by(col(Job.id))).all()
    return next((job for job in jobs if job.phase != "idle" and (besides is None or job.id != besides.id)), None)


def queued_jobs(session: Session, limit: int = 100) -> Sequence[Job]:
    """The queue in its order, previews left out; each lane takes the first of its own."""
    order = (col(Job.priority).desc(), col(Job.position), col(Job.id))
    return session.exec(
        select(Job).where(Job.status == JobStatus.QUEUED, _NO_PREVIEW).order_by(*order).limit(limit)
    ).all()


def count_queued(session: Session, kinds: Collection[JobKind]) -> int:
    """How many jobs of these kinds wait."""
    waiting = select(func.count()).select_from(Job).where(Job.status == JobStatus.QUEUED, col(Job.kind).in_(kinds))
    return session.exec(waiting).one()


def queue_position(session: Session, job: Job) -> int | None:
    """The job's place in the queue, from 1; None for a job that does not wait, or is a preview."""
    if job.status != JobStatus.QUEUED or job.kind == JobKind.PREVIEW:
        return None
    ahead = (col(Job.priority) > job.priority) | (
        (col(Job.priority) == job.priority) & (col(Job.position) < job.position)
    )
    waiting = select(func.count()).select_from(Job).where(Job.status == JobStatus.QUEUED, _NO_PREVIEW)
    return 1 + session.exec(waiting.where(ahead)).one()


def find_awaited(session: Session, job: Job) -> str | None:
    """The name of the base model or dataset whose import a queued job waits for."""
    return find_all_awaited(session, [job])[job.key]


def find_all_awaited(session: Session, jobs: Sequence[Job]) -> dict[int, str | None]:
    """The same of many jobs, by id, with two queries."""
    models = dict(
        session.exec(select(BaseModel.id, BaseModel.name).where(BaseModel.status == ModelStatus.IMPORTING)).all()
    )
    datasets = dict(
        session.exec(select(Dataset.id, Dataset.name).where(Dataset.status == DatasetStatus.IMPORTING)).all()
    )
    return {
        job.key: models.get(job.base_model_id) or datasets.get(job.dataset_id)
        if job.status == JobStatus.QUEUED and job.kind != JobKind.IMPORT
        else None
        for job in jobs
    }


def likely_model_path(session: Session) -> str | None:
    """The folder of the model that a next job will most likely train: the last job's, else the newest one's."""
    order = (func.coalesce(func.max(Job.id), 0).desc(), col(BaseModel.id).desc())
    on_it = (col(Job.base_model_id) == BaseModel.id) & (col(Job.kind) == JobKind.TRAIN)
    ready = select(BaseModel.path).outerjoin(Job, on_it).where(BaseModel.status == ModelStatus.READY)
    return session.exec(ready.group_by(col(BaseModel.id)).order_by(*order)).first()


def heartbeat_age_seconds(state: WorkerState) -> float | None:
    """By the clock that runs since the boot, which nobody sets; None where the worker is gone with an earlier boot."""
    if state.boot_id != boot_id() or state.heartbeat_at == 0.0:
        return None
    return max(0.0, uptime_seconds() - state.heartbeat_at)


def is_alive(state: WorkerState) -> bool:
    """Whether the worker has been heard of lately."""
    age = heartbeat_age_seconds(state)
    return age is not None and age <= WORKER_ALIVE_SECONDS


def worker_view(session: Session) -> dict[str, Any]:
    """The worker as `health` shows it: {alive, pid, heartbeat_age_seconds, job_id, capabilities}."""
    state = session.get(WorkerState, 1)
    if state is None:
        return {"alive": False, "pid": None, "heartbeat_age_seconds": None, "job_id": None, "capabilities": None}
    age = heartbeat_age_seconds(state)
    job = active_job(session)
    return {
        "alive": is_alive(state),
        "pid": state.pid,
        "heartbeat_age_seconds": None if age is None else round(age, 3),
        "job_id": job.id if job else None,
        "capabilities": state.capabilities,
    }


def find_capabilities(session: Session) -> dict[str, Any] | None:
    """What the last worker has said that its children can do; None where none has said anything yet."""
    state = session.get(WorkerState, 1)
    return None if state is None else state.capabilities


def latest_reading(session: Session) -> dict[str, Any] | None:
    """The newest GPU and host reading, or None where the worker is not alive to take one."""
    state = session.get(WorkerState, 1)
    return state.reading if state is not None and is_alive(state) else None
