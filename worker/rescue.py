"""Jobs that an earlier worker had in hand: those whose children live are adopted, the others go on or end."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Collection
from dataclasses import dataclass

from sqlmodel import Session, col, select

from app.core.boot import boot_id
from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import ACTIVE, JobStatus
from app.core.paths import DataFolder
from worker.artifacts.steps import collect_halves
from worker.attempts import take_over
from worker.identity import ProcessIdentity
from worker.ingest import Ingest
from worker.launch import Launcher
from worker.settle import End, settle
from worker.spool import SpoolDamaged
from worker.supervisor import Supervisor

logger = logging.getLogger(__name__)

_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Rescue:
    """Takes over what no worker has in hand. Where `adopts` is False, children are of other code and are ended."""

    database: Database
    folder: DataFolder
    launcher: Launcher
    adopts: bool = True

    def run(self, in_hand: Collection[int] = ()) -> list[Supervisor]:
        """Supervisors of the children that live. Jobs whose ids are `in_hand` are supervised, not stranded.

        Raises: TimeoutError where a child that is to end does not.
        """
        found = [self._rescue(job_id) for job_id in self._find_stranded(in_hand)]
        return [supervisor for supervisor in found if supervisor is not None]

    def _find_stranded(self, in_hand: Collection[int]) -> list[int]:
        unsettled = col(Job.status).in_({*ACTIVE, JobStatus.INTERRUPTED})
        with self.database.read() as session:
            jobs = session.exec(select(Job).where(unsettled, col(Job.id).not_in(in_hand)).order_by(col(Job.id)))
            return [job.key for job in jobs]

    def _rescue(self, job_id: int) -> Supervisor | None:
        """From the first transaction on, whoever had the job in hand before is refused."""
        with self.database.write() as session:
            job = queue.get_job(session, job_id)
            attempt = session.get(Attempt, (job.key, job.attempts))
            if job.status == JobStatus.INTERRUPTED:
                queue.advance(session, job, JobStatus.QUEUED)
                return None
            if attempt is None:
                queue.interrupt(session, job)
                return None
            job, attempt = take_over(session, job, attempt)
        identity = ProcessIdentity.of_attempt(attempt)
        if identity is not None and identity.lives():
            if self.adopts:
                logger.warning("job %s goes on: its process %d lives", job.id, identity.pid, extra={"action": "adopt"})
                return self.launcher.adopt(job, attempt, identity)
            end_process(identity)
            self._settle(attempt, End(planned=True))
        else:
            self._settle(attempt, _seen_of(identity))
        return None

    def _settle(self, attempt: Attempt, end: End) -> None:
        try:
            Ingest(self.database, self.folder, attempt).run(at_end=True)
        except SpoolDamaged as error:
            logger.warning("job %s: what was behind the damage in its spool is lost: %s", attempt.job_id, error)
        collect_halves(self.folder.job(attempt.job_id))
        with self.database.write() as session:
            status = _settle(session, self.folder, attempt, end)
        logger.warning("job %s was stranded; it is %s now", attempt.job_id, status, extra={"action": "rescue"})


def _settle(session: Session, folder: DataFolder, attempt: Attempt, end: End) -> JobStatus:
    job = queue.get_job(session, attempt.job_id)
    stored = session.get_one(Attempt, (attempt.job_id, attempt.number))
    stored.ended_at = stored.ended_at or time.time()
    session.add(stored)
    return settle(session, folder, job, stored, end).status


def _seen_of(identity: ProcessIdentity | None) -> End:
    """What is known of a process that is gone. Without one, nothing has begun: the next attempt is the first."""
    if identity is None:
        return End(planned=True)
    if identity.boot_id != boot_id():
        return End(unseen="The machine was started anew while it ran.")
    return End(unseen="Its process ended while no worker ran, without a last word.")


def end_process(identity: ProcessIdentity) -> None:
    """Kill a child and its group, and see it end. Raises: TimeoutError where it does not."""
    identity.signal_group(signal.SIGKILL)
    if not identity.wait(_END_SECONDS):
        raise TimeoutError(f"process {identity.pid} does not end")
