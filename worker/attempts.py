"""Whose attempt it is: a supervisor's writes hold only as long as nobody else has taken the job over."""

from __future__ import annotations

from sqlmodel import Session

from app.core.database import Database
from app.core.errors import Conflict
from app.core.jobs.models import Attempt, Job
from app.core.jobs.queue import get_job
from worker.identity import ProcessIdentity


class StaleAttempt(Conflict):
    """Another worker has taken the job over, or a later attempt has begun; this one's writes are refused."""

    code = "stale_attempt"


def hold(session: Session, attempt: Attempt) -> tuple[Job, Attempt]:
    """The job and the stored attempt, to be changed in this transaction. Raises: StaleAttempt."""
    job = get_job(session, attempt.job_id)
    if job.fence != attempt.fence:
        raise StaleAttempt()
    return job, session.get_one(Attempt, (attempt.job_id, attempt.number), populate_existing=True)


def take_over(session: Session, job: Job, attempt: Attempt) -> tuple[Job, Attempt]:
    """Give the job and its last attempt a new fence: who has held them is refused from here on."""
    job.fence = attempt.fence = job.fence + 1
    session.add_all([job, attempt])
    session.flush()
    return job, attempt


def put_on_record(database: Database, attempt: Attempt, pid: int) -> None:
    """Store which process works on the attempt. Raises: StaleAttempt, ProcessLookupError."""
    identity = ProcessIdentity.of(pid)
    with database.write() as session:
        _, stored = hold(session, attempt)
        stored.pid, stored.pid_started_at, stored.boot_id = identity.pid, identity.started_at, identity.boot_id
        session.add(stored)
