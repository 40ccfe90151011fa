"""How an attempt ended: what its process said last, what its exit says, and what that makes of the job."""

from __future__ import annotations

import shutil
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from app.core.datasets.hub import set_facts as set_dataset_facts
from app.core.datasets.models import Dataset
from app.core.datasets.store import rows_path
from app.core.errors import AppError, NotFound
from app.core.jobs import queue
from app.core.jobs.checks import drop_file
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import JobKind, JobStatus
from app.core.models.inspect import inspect_folder
from app.core.models.models import BaseModel
from app.core.models.registry import set_facts
from app.core.paths import DataFolder
from worker.artifacts.folders import STATE
from worker.ingest import clean_lines
from worker.post_mortem import complete_autopsy, explain_death
from worker.residual import add_residual

_TAIL_BYTES = 8192


def settle(
    session: Session,
    folder: DataFolder,
    job: Job,
    attempt: Attempt,
    damage: str | None = None,
    killed_for_memory: bool | None = None,
) -> Job:
    """Move the job to its end: its process has been seen to end. `damage` says what was wrong with what it told.

    `killed_for_memory`: whether the kernel killed a process for want of memory while it ran, None where unknown.
    """
    if job.kind == JobKind.CHECK:
        drop_file(folder, job)
    outcome = attempt.outcome or {}
    summary = {**job.summary, **outcome.get("summary", {})}
    if outcome.get("outcome") == "completed" and damage is None:
        error = _take_import(session, folder, job, summary) if job.kind == JobKind.IMPORT else None
        if "memory" in summary:
            summary["memory"] = add_residual(session, job, summary["memory"])
        status = JobStatus.FAILED if error else JobStatus.COMPLETED
        shutil.rmtree(folder.job(job.key) / STATE, ignore_errors=True)  # of use only to a run that has yet to end
        return queue.advance(session, job, status, summary=summary, error=error)
    if job.cancel_requested or outcome.get("outcome") == "cancelled":
        return queue.advance(session, job, JobStatus.CANCELLED, summary=summary)
    error = outcome.get("error") or explain_death(attempt.exit_code, damage, killed_for_memory)
    if "autopsy" in error:
        error = {**error, "autopsy": complete_autopsy(session, folder, job, attempt, error["autopsy"])}
    tail = {**error, "log_tail": _log_tail(session, folder, attempt)}
    return queue.advance(session, job, JobStatus.FAILED, error=tail, summary=summary)


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
