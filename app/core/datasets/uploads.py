"""Uploaded files whose rows the worker checks: queue the import, tell what it came to, forget what failed."""

from __future__ import annotations

import shutil
import time
from typing import Any

from sqlmodel import Session, col, select, update

from app.core.datasets.columns import Columns
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.datasets.normalise import UNMAPPED, UnknownFormat
from app.core.datasets.store import Upload
from app.core.errors import AppError, Conflict, DatasetFormatError, Fault, InvalidInput
from app.core.jobs.imports import queue_import
from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from app.core.names import clean_name, name_taken
from app.core.paths import DataFolder


def queue_upload(
    session: Session, folder: DataFolder, upload: Upload, columns: Columns | None = None, name: str | None = None
) -> Job:
    """Register the received file by name now, and queue the job that checks its rows.

    The name of a dataset whose import failed is used again; that one is forgotten. Raises: InvalidInput or Conflict
    on `name`.
    """
    name = clean_name(name or upload.stem, "dataset")
    known = session.exec(select(Dataset).where(Dataset.name == name)).first()
    if known is not None and known.status != DatasetStatus.FAILED:
        raise name_taken(name, "dataset")
    if known is not None:
        forget(session, folder, known)
    dataset = Dataset(
        name=name,
        status=DatasetStatus.IMPORTING,
        source=upload.source_facts,
        columns=columns or {},
        format="",
        rows=0,
        bytes=upload.bytes,
        sha256=upload.sha256,
        rows_sha256="",
        created_at=time.time(),
    )
    upload.place(session, dataset)
    return queue_import(session, dataset.name, dataset.source, dataset_id=dataset.key)


def forget(session: Session, folder: DataFolder, dataset: Dataset) -> None:
    """Delete a dataset whose import failed, and its files; its jobs stay. Raises: Conflict for any other."""
    if dataset.status != DatasetStatus.FAILED:
        raise Conflict(f"{dataset.name} is {dataset.status}; only a dataset whose import failed can be removed.")
    session.execute(update(Job).where(col(Job.dataset_id) == dataset.id).values(dataset_id=None))
    session.delete(dataset)
    session.flush()
    shutil.rmtree(folder.dataset(dataset.key), ignore_errors=True)


def import_error(job: Job) -> AppError:
    """What an import that ended without a dataset is to its user: invalid input with its rows, or a cancel."""
    if job.status == JobStatus.CANCELLED:
        return Conflict(f"The import of the file was cancelled (job {job.id}).")
    error: dict[str, Any] = job.error or {}
    faults = [Fault(**fault) for fault in error.get("faults", ())]
    if UNMAPPED in job.summary:
        return UnknownFormat(job.summary[UNMAPPED], faults)
    if faults and error["kind"] == InvalidInput.code:
        return InvalidInput(faults)
    told = Fault("file", error.get("message", "It could not be read."), error.get("advice"))
    return DatasetFormatError(faults or [told])
