"""Supervise the child that works on a job: take in what it tells, pass on requests, see it end and say how."""

from __future__ import annotations

import logging
import signal
import subprocess
import time

from sqlmodel import Session

from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import JobStatus
from app.core.paths import DataFolder
from worker.children import kill_group
from worker.context import SIGNALS, StopRequest
from worker.identity import ProcessIdentity
from worker.ingest import Ingest
from worker.settle import settle
from worker.shortage import count_oom_kills
from worker.spool import SpoolDamaged

logger = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 15.0  # from SIGTERM to SIGKILL


class Supervisor:
    """One child, one attempt. Call `step()` often; it never waits."""

    def __init__(
        self,
        database: Database,
        folder: DataFolder,
        job: Job,
        attempt: Attempt,
        child: subprocess.Popen[str],
        patience_seconds: float | None = None,
    ) -> None:
        """A child that tells nothing for `patience_seconds` is killed, where they are given."""
        self._database = database
        self._folder = folder
        self._child = child
        self._attempt = (attempt.job_id, attempt.number)
        self._ingest = Ingest(database, folder, attempt)
        self._kill_at: float | None = None
        self._sent: StopRequest | None = None
        self._damage: str | None = None
        self._patience = patience_seconds
        self._heard_at = time.monotonic()
        self._silence: str | None = None
        self._oom_kills = count_oom_kills()
        self.job = self._begin(job)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def step(self) -> bool:
        """Do what is due. Returns False once the child has ended and its job is settled."""
        ended = self._child.poll() is not None
        self._take_in(at_end=ended)
        if ended:
            self._settle()
            return False
        self._pass_on_requests()
        self._kill_silent()
        return True

    def ask_to_stop(self) -> None:
        """The worker stops: the child is to end soon, and may save what it goes on from. `interrupt` waits for it."""
        kill_group(self._child, SIGNALS[StopRequest.INTERRUPT])

    def interrupt(self, timeout_seconds: float) -> None:
        """The worker stops: end the child, leave the job queued for the next worker. Waits for the child."""
        self.ask_to_stop()
        try:
            self._child.wait(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            kill_group(self._child, signal.SIGKILL)
            self._child.wait()
        self._take_in(at_end=True)
        with self._database.write() as session:
            job, attempt = self._close_attempt(session)
            outcome = attempt.outcome or {}
            if outcome.get("outcome") == "completed" or outcome.get("summary"):  # a stop that saved has one, too
                self.job = settle(session, self._folder, job, attempt, self._damage)
            else:
                attempt.outcome = {"outcome": "interrupted"}  # a planned stop is no loss
                session.add(attempt)
                queue.interrupt(session, job)

    def _begin(self, job: Job) -> Job:
        identity = ProcessIdentity.of(self._child.pid)
        with self._database.write() as session:
            attempt = session.get_one(Attempt, self._attempt)
            attempt.pid, attempt.pid_started_at, attempt.boot_id = identity.pid, identity.started_at, identity.boot_id
            session.add(attempt)
            return queue.advance(session, job, JobStatus.RUNNING)

    def _take_in(self, *, at_end: bool) -> None:
        if self._damage is not None:
            return
        try:
            if self._ingest.run(at_end=at_end):
                self._heard_at = time.monotonic()
        except SpoolDamaged as error:
            self._damage = f"The job's spool is damaged: {error}"
            logger.error("job %s: %s", self.job.id, self._damage)
            kill_group(self._child, signal.SIGKILL)

    def _pass_on_requests(self) -> None:
        with self._database.read() as session:
            self.job = queue.get_job(session, self.job.key)
        wanted = _wanted(self.job)
        if wanted is not None and wanted != self._sent:
            self._stop(wanted)
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            logger.warning("job %s did not stop in time; killing it", self.job.id, extra={"job_id": self.job.id})
            kill_group(self._child, signal.SIGKILL)

    def _kill_silent(self) -> None:
        if self._patience is None or time.monotonic() - self._heard_at < self._patience:
            return
        self._silence = f"Its process was ended: it had not told of any progress for {self._patience:g} s."
        logger.warning("job %s: %s", self.job.id, self._silence, extra={"job_id": self.job.id})
        kill_group(self._child, signal.SIGKILL)

    def _stop(self, request: StopRequest) -> None:
        if self.job.status == JobStatus.RUNNING:
            with self._database.write() as session:
                self.job = queue.advance(session, self.job, JobStatus.STOPPING)
        if request is StopRequest.CANCEL:
            self._kill_at = time.monotonic() + STOP_GRACE_SECONDS
        kill_group(self._child, SIGNALS[request])
        self._sent = request  # last: what fails above is tried again in the next round

    def _settle(self) -> None:
        """The process has been seen to end: now, and only now, the job has ended too."""
        with self._database.write() as session:
            job, attempt = self._close_attempt(session)
            self.job = settle(
                session, self._folder, job, attempt, self._damage or self._silence, self._killed_for_memory()
            )
        logger.info("job %s ended as %s", self.job.id, self.job.status, extra={"action": "finish_job"})

    def _killed_for_memory(self) -> bool | None:
        """Whether the kernel has killed a process for want of memory since the child began; None where unknown."""
        before, now = self._oom_kills, count_oom_kills()
        return None if before is None or now is None else now > before

    def _close_attempt(self, session: Session) -> tuple[Job, Attempt]:
        attempt = session.get_one(Attempt, self._attempt)
        attempt.ended_at, attempt.exit_code = time.time(), self._child.returncode
        session.add(attempt)
        return queue.get_job(session, self.job.key), attempt


def _wanted(job: Job) -> StopRequest | None:
    if job.cancel_requested:
        return StopRequest.CANCEL
    return StopRequest.SAVE if job.save_requested else None
