"""What tests of the pages of jobs share: a form that is valid, and the way of a job through its states."""

from __future__ import annotations

from collections.abc import Callable

from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.listing import list_jobs
from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus

MakeJob = Callable[..., Job]
FORM = {"base_model": "tiny", "dataset": "small", "name": "first", "r": "8"}


def advance(database: Database, job: Job, *statuses: JobStatus, **fields: object) -> Job:
    for status in statuses:
        with database.write() as session:
            last = status == statuses[-1]
            job = queue.advance(session, queue.get_job(session, job.key), status, **(fields if last else {}))
    return job


def count_jobs(database: Database) -> int:
    with database.read() as session:
        return list_jobs(session).total
