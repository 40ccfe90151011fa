"""Jobs that an earlier worker had in hand when it was killed."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from sqlmodel import Session, col, select

from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import ACTIVE, JobStatus
from app.core.paths import DataFolder
from worker.identity import ProcessIdentity, boot_id, end_process
from worker.ingest import Ingest
from worker.settle import settle
from worker.spool import SpoolDamaged

logger = logging.getLogger(__name__)


def rescue(database: Database, folder: DataFolder, in_hand: Collection[int] = ()) -> None:
    """End the stranded jobs' processes, take in their spools, and settle them or queue them again.

    Jobs whose ids are `in_hand` are supervised, not stranded.
    """
    unsettled = col(Job.status).in_({*ACTIVE, JobStatus.INTERRUPTED})
    with database.read() as session:
        stranded = session.exec(select(Job).where(unsettled, col(Job.id).not_in(in_hand))).all()
        attempts = {job.id: session.get(Attempt, (job.id, job.attempts)) for job in stranded}
    for job in stranded:
        attempt = attempts[job.id]
        if attempt is not None:
            _end_attempt(database, folder, attempt)
        with database.write() as session:
            status = _settle_or_requeue(session, folder, job.key)
        logger.warning("job %s was stranded; it is %s now", job.id, status, extra={"action": "rescue"})


def _end_attempt(database: Database, folder: DataFolder, attempt: Attempt) -> None:
    if attempt.pid is not None:
        end_process(ProcessIdentity(attempt.pid, attempt.pid_started_at or 0.0, attempt.boot_id or boot_id()))
    try:
        Ingest(database, folder, attempt).run(at_end=True)
    except SpoolDamaged as error:
        logger.warning("job %s: what was behind the damage in its spool is lost: %s", attempt.job_id, error)


def _settle_or_requeue(session: Session, folder: DataFolder, job_id: int) -> JobStatus:
    """A child that came to its end while no worker lived has said how; any other's job is queued again."""
    job = queue.get_job(session, job_id)
    attempt = session.get(Attempt, (job.key, job.attempts))
    if attempt is not None:
        attempt.ended_at = attempt.ended_at or time.time()
        session.add(attempt)
    if job.status == JobStatus.INTERRUPTED:
        return queue.advance(session, job, JobStatus.QUEUED).status
    if attempt is not None and (attempt.outcome or {}).get("outcome") in ("completed", "failed"):
        return settle(session, folder, job, attempt).status
    return queue.interrupt(session, job).status
