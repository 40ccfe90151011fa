"""An uploaded file on its way to a dataset: received here, checked by the worker, waited for without a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import cast

from fastapi import UploadFile
from fastapi.concurrency import run_in_threadpool

from app.core.database import Database
from app.core.datasets.columns import parse_columns
from app.core.datasets.incoming import IncomingFile
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.datasets.store import Upload
from app.core.datasets.uploads import forget, import_error, queue_upload
from app.core.errors import InvalidInput
from app.core.jobs.models import Job
from app.core.jobs.queries import worker_view
from app.core.jobs.queue import get_job
from app.core.jobs.status import ENDED, JobStatus
from app.core.paths import DataFolder

NO_WORKER_SECONDS = 3.0  # a worker that starts beside the dashboard is not there at once
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.3


def receive(
    database: Database,
    folder: DataFolder,
    file: UploadFile | None,
    max_bytes: int,
    column: Sequence[str] = (),
    name: str | None = None,
) -> Job:
    """Register the file as a dataset that is being imported, and queue the job that checks its rows.

    Raises: InvalidInput, Conflict, TooLarge; then nothing is left behind.
    """
    columns = parse_columns(column)
    with stored_upload(folder, file) as upload:
        upload.accept(max_bytes)
        with database.write() as session:
            return queue_upload(session, folder, upload, columns, name)


def stored_upload(folder: DataFolder, file: UploadFile | None) -> Upload:
    """The file of a `StoringRoute`'s request. Raises: InvalidInput, where it is none."""
    if file is None or not file.filename:
        raise InvalidInput("Choose a file first.", field="file")
    return Upload(folder, file.filename, cast(IncomingFile, file.file))


async def wait_for_import(database: Database, job_id: int, seconds: float, *, is_watched: bool = False) -> Job:
    """The job once it has ended; as it stands after so many seconds, or soon where it waits and no worker is alive.

    Where a page shows how it goes on (`is_watched`), also as it stands once it is known to take longer than that.
    """
    begin, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
    while True:
        job, alive = await run_in_threadpool(_look, database, job_id)
        waited = time.monotonic() - begin
        takes_longer = is_watched and (job.eta_seconds or 0.0) > seconds - waited
        if takes_longer or job.status in ENDED or waited >= seconds or (not alive and waited >= NO_WORKER_SECONDS):
            return job
        await asyncio.sleep(min(pause, seconds - waited))
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _look(database: Database, job_id: int) -> tuple[Job, bool]:
    """The job, and whether a worker has it or could take it."""
    with database.read() as session:
        job = get_job(session, job_id)
        return job, job.status != JobStatus.QUEUED or bool(worker_view(session)["alive"])


def take(database: Database, folder: DataFolder, job: Job) -> Dataset:
    """The dataset of an import, as it stands. Raises: InvalidInput or Conflict where that ended without rows.

    The dataset is forgotten then.
    """
    if job.status not in ENDED or job.status == JobStatus.COMPLETED:
        with database.read() as session:
            return session.get_one(Dataset, job.dataset_id)
    with database.write() as session:
        dataset = session.get(Dataset, job.dataset_id) if job.dataset_id is not None else None
        if dataset is not None and dataset.status == DatasetStatus.FAILED:
            forget(session, folder, dataset)
    raise import_error(job)


def describe_wait(database: Database, job: Job) -> tuple[str, str]:
    """Why there are no rows yet, and what to do."""
    if not _look(database, job.key)[1]:
        advice = "Start one with `loradeck worker`, or start the dashboard without --no-worker."
        return "The file is stored, but no worker is running to check its rows.", advice
    return "The file is stored; its rows are still being checked.", f"Ask for job {job.id} until it has ended."
