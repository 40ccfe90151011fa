"""How an attempt ended: what its process said last, what its exit says, and what that makes of the job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from app.core.chats.asking import after_session
from app.core.chats.turns import is_chat
from app.core.datasets.hub import set_facts as set_dataset_facts
from app.core.datasets.models import Dataset
from app.core.datasets.store import rows_path
from app.core.errors import AppError, HostOutOfMemory, NotFound
from app.core.jobs import queue
from app.core.jobs.checks import drop_file
from app.core.jobs.losses import Cause, cause_of
from app.core.jobs.models import Attempt, Job
from app.core.jobs.states import keep_states, prune_states
from app.core.jobs.status import ENDED, JobKind, JobStatus
from app.core.models.inspect import inspect_folder
from app.core.models.models import BaseModel
from app.core.models.registry import set_facts
from app.core.paths import DataFolder
from worker.ingest import clean_lines
from worker.lanes import is_light
from worker.limits import TookTooLong
from worker.post_mortem import complete_autopsy, explain_death
from worker.residual import add_residual
from worker.spool import NO_SPACE

_TAIL_BYTES = 8192


@dataclass(frozen=True, slots=True)
class End:
    """What was seen of a process's end beside its exit code."""

    damage: str | None = None  # what was wrong with what it told
    killed_for_memory: bool | None = None  # whether the kernel killed a process for that while it ran
    planned: bool = False  # its worker has ended it, so that it goes on later
    unseen: str | None = None  # it ended while no worker looked: what is known all the same


def settle(session: Session, folder: DataFolder, job: Job, attempt: Attempt, end: End = End()) -> Job:
    """Move the job to where its process has left it: to an end of its own, or back into the queue."""
    job.held_up = None
    job = _settle(session, folder, job, attempt, end)
    if job.kind == JobKind.CHECK and job.status in ENDED:
        drop_file(folder, job)
    if is_chat(job):
        job = after_session(session, job)
    if job.kind == JobKind.TRAIN and job.status in ENDED:
        prune_states(session, folder)
    return job


def _settle(session: Session, folder: DataFolder, job: Job, attempt: Attempt, end: End) -> Job:
    outcome = attempt.outcome or {}
    summary = {**job.summary, **outcome.get("summary", {})}
    if outcome.get("outcome") == "completed" and end.damage is None:
        return _complete(session, folder, job, summary)
    if _goes_on(job, outcome, end):
        attempt.outcome = {"outcome": "interrupted"}  # no loss
        session.add(attempt)
        return queue.interrupt(session, job)
    if job.cancel_requested or outcome.get("outcome") == "cancelled":
        return queue.advance(session, job, JobStatus.CANCELLED, summary=summary)
    error = outcome.get("error") or _explain(attempt, end)
    cause = _find_cause(job, attempt, error, end)
    if "autopsy" in error:
        error = {**error, "autopsy": complete_autopsy(session, folder, job, attempt, error["autopsy"])}
    error = {**error, "log_tail": _log_tail(session, folder, attempt)}
    if cause is not None:
        return queue.interrupt(session, job, cause, error)
    return queue.advance(session, job, JobStatus.FAILED, error=error, summary=summary)


def _complete(session: Session, folder: DataFolder, job: Job, summary: dict[str, Any]) -> Job:
    error = _take_import(session, folder, job, summary) if job.kind == JobKind.IMPORT else None
    if "memory" in summary:
        summary["memory"] = add_residual(session, job, summary["memory"])
    status = JobStatus.FAILED if error else JobStatus.COMPLETED
    keep_states(folder, job, {summary.get("steps"), summary.get("best_eval_step")})  # what a longer run goes on from
    return queue.advance(session, job, status, summary=summary, error=error)


def _goes_on(job: Job, outcome: dict[str, Any], end: End) -> bool:
    """Whether its worker, or a machine that stops, has ended the process; nobody has asked for the job's end."""
    if not outcome:
        return end.planned and not job.cancel_requested
    if outcome["outcome"] != "cancelled" or job.cancel_requested:
        return False
    return not job.save_requested or (end.planned and not outcome["summary"])


def _explain(attempt: Attempt, end: End) -> dict[str, Any]:
    if end.unseen is not None and end.damage is None:
        return {"kind": "child_died", "message": end.unseen, "advice": "The log's last lines may say more."}
    return explain_death(attempt.exit_code, end.damage, end.killed_for_memory)


def _find_cause(job: Job, attempt: Attempt, error: dict[str, Any], end: End) -> Cause | None:
    """What the attempt was lost to, where the job is to be tried again."""
    if attempt.outcome is not None:
        return cause_of(job, error)
    if end.damage is not None or error["kind"] == TookTooLong.code:
        return None
    if is_light(job) and end.unseen is None:  # what somebody uploaded is at fault rather than the machine
        return None
    return Cause.HOST_OUT_OF_MEMORY if error["kind"] == HostOutOfMemory.code else Cause.PROCESS_LOST


def settle_unstarted(session: Session, job: Job, error: AppError | OSError) -> None:
    """No process has begun: the job waits where the disk is full, and fails otherwise."""
    advice = error.advice if isinstance(error, AppError) else "Look at the worker's log."
    failure = {"kind": "start", "message": f"The job could not start: {error}", "advice": advice}
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        queue.interrupt(session, job, Cause.DISK_FULL, {**failure, "kind": Cause.DISK_FULL.value})
    else:
        queue.advance(session, job, JobStatus.FAILED, error=failure)


def _take_import(session: Session, folder: DataFolder, job: Job, summary: dict[str, Any]) -> dict[str, Any] | None:
    """Make what the import brought ready; or say why it is not."""
    try:
        if job.dataset_id is not None:
            _take_dataset(session, folder, job.dataset_id, summary)
        else:
            _take_model(session, folder, job.base_model_id, summary.get("revision"))
    except AppError as error:
        return {"kind": error.code, "message": error.message, "advice": error.advice}
    return None


def _take_dataset(session: Session, folder: DataFolder, dataset_id: int, facts: dict[str, Any]) -> None:
    """The child has counted and hashed the rows; the worker sees that they are there. Raises: NotFound."""
    dataset = session.get_one(Dataset, dataset_id)
    if not rows_path(folder, dataset).is_file():
        raise NotFound(f"The rows of {dataset.name} are gone.", advice="Import it again.")
    set_dataset_facts(dataset, facts)
    session.add(dataset)


def _take_model(session: Session, folder: DataFolder, model_id: int | None, revision: str | None) -> None:
    """Look at the folder that the import made; `revision` is the hub's commit. Raises: InvalidInput."""
    model = session.get_one(BaseModel, model_id)
    if revision:
        model.source = {**model.source, "revision": revision}
    set_facts(model, inspect_folder(folder.model(model.key)))
    session.add(model)


def _log_tail(session: Session, folder: DataFolder, attempt: Attempt) -> list[str]:
    """The last lines that this attempt wrote: it began where the one before it had been taken in to the end."""
    path = folder.job(attempt.job_id) / "train.log"
    if not path.exists():
        return []
    earlier = select(func.max(Attempt.log_offset)).where(
        Attempt.job_id == attempt.job_id, col(Attempt.number) < attempt.number
    )
    start = session.exec(earlier).one() or 0
    with path.open("rb") as file:
        file.seek(max(start, path.stat().st_size - _TAIL_BYTES))
        return clean_lines(file.read())[-20:]
