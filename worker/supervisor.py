"""Supervise the child that works on a job: take in what it tells, pass on requests, see it end and say how."""

from __future__ import annotations

import logging
import signal
import time

from sqlmodel import Session

from app.core.chats.turns import is_chat
from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import JobStatus
from app.core.paths import DataFolder
from worker.artifacts.steps import collect_halves
from worker.attempts import StaleAttempt, hold
from worker.context import SAMPLE_NOW, SAVE_NOW, SIGNALS, StopRequest
from worker.conversation import Conversation
from worker.hold_ups import HoldUps
from worker.ingest import Ingest
from worker.processes import JobProcess
from worker.settle import End, settle
from worker.shortage import count_oom_kills
from worker.spool import NO_SPACE, SpoolDamaged

logger = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 15.0  # from a cancel to SIGKILL


class Supervisor:
    """One child, one attempt. Call `step()` often; it never waits."""

    def __init__(
        self,
        database: Database,
        folder: DataFolder,
        job: Job,
        attempt: Attempt,
        process: JobProcess,
        patience_seconds: float | None = None,
    ) -> None:
        """A child that tells nothing for `patience_seconds` is killed, where they are given. Raises: Conflict."""
        self._database = database
        self._folder = folder
        self._process = process
        self._attempt = attempt
        self._ingest = Ingest(database, folder, attempt)
        attempt_folder = folder.attempt(attempt.job_id, attempt.number)
        self._hold_ups = HoldUps(attempt_folder)
        self._conversation = Conversation(attempt_folder) if is_chat(job) else None
        self._kill_at: float | None = None
        self._sent: StopRequest | None = None
        self._saving = self._sampling = False
        self._damage: str | None = None
        self._patience = patience_seconds
        self._heard_at = time.monotonic()
        self._silence: str | None = None
        self._oom_kills = count_oom_kills()
        self.job = self._begin(job)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def step(self) -> bool:
        """Do what is due. Returns False once the child has ended and its job is settled, or is another's."""
        ended = self._process.has_ended()
        try:
            self._take_in(at_end=ended)
            if ended:
                self._settle()
                return False
            self._pass_on_requests()
            self._tell_hold_up()
        except StaleAttempt:
            self._let_go()
            return False
        self._kill_silent()
        return True

    def ask_to_stop(self) -> None:
        """The worker stops: the child is to end soon, and may save what it goes on from. `interrupt` waits for it."""
        if self._is_ours():
            self._process.send(SIGNALS[StopRequest.INTERRUPT])

    def interrupt(self, timeout_seconds: float) -> None:
        """The worker stops: end the child, leave the job queued for the next worker. Waits for the child."""
        self.ask_to_stop()
        if self._is_ours():
            self._end(timeout_seconds)
            self._take_in(at_end=True)
            self._settle(planned=True)
        else:
            self._let_go()

    def _begin(self, job: Job) -> Job:
        """An adopted child may have begun before."""
        if job.status != JobStatus.STARTING:
            return job
        with self._database.write() as session:
            return queue.advance(session, job, JobStatus.RUNNING)

    def _is_ours(self) -> bool:
        with self._database.read() as session:
            return queue.get_job(session, self.job.key).fence == self._attempt.fence

    def _let_go(self) -> None:
        """The job is another worker's. It supervises this very child, or else the child is a stray."""
        with self._database.read() as session:
            later = queue.get_job(session, self.job.key).attempts > self._attempt.number
        logger.error("job %s has been taken over by another worker", self.job.id, extra={"action": "let_go"})
        if later:
            self._process.send(signal.SIGKILL)

    def _end(self, timeout_seconds: float) -> None:
        if not self._process.wait(timeout_seconds):
            self._process.send(signal.SIGKILL)
            self._process.wait(STOP_GRACE_SECONDS)

    def _take_in(self, *, at_end: bool) -> None:
        if self._damage is not None:
            return
        try:
            if self._ingest.run(at_end=at_end):
                self._heard_at = time.monotonic()
        except SpoolDamaged as error:
            self._damage = f"The job's spool is damaged: {error}"
            logger.error("job %s: %s", self.job.id, self._damage)
            self._process.send(signal.SIGKILL)

    def _pass_on_requests(self) -> None:
        with self._database.read() as session:
            self.job = queue.get_job(session, self.job.key)
            self._talk(session)
        if self.job.fence != self._attempt.fence:
            raise StaleAttempt()
        wanted = _wanted(self.job)
        if wanted is not None and wanted != self._sent:
            self._stop(wanted)
        if self.job.save_now_requested and not self._saving:
            self._process.send(SAVE_NOW)
        self._saving = self.job.save_now_requested  # until a checkpoint comes
        if self.job.sample_now_requested and not self._sampling:
            self._process.send(SAMPLE_NOW)
        self._sampling = self.job.sample_now_requested  # until it is in that phase
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            logger.warning("job %s did not stop in time; killing it", self.job.id, extra={"job_id": self.job.id})
            self._process.send(signal.SIGKILL)

    def _talk(self, session: Session) -> None:
        if self._conversation is None or self.job.fence != self._attempt.fence:
            return
        try:
            self._conversation.pass_on(session, self.job)
        except OSError as error:  # tried again in the next round; what waits is not lost
            if error.errno not in NO_SPACE:
                raise
            logger.warning("the disk is full: chat %s waits for its next question", self.job.id)

    def _kill_silent(self) -> None:
        if self._patience is None or time.monotonic() - self._heard_at < self._patience:
            return
        self._silence = f"Its process was ended: it had not told of any progress for {self._patience:g} s."
        logger.warning("job %s: %s", self.job.id, self._silence, extra={"job_id": self.job.id})
        self._process.send(signal.SIGKILL)

    def _stop(self, request: StopRequest) -> None:
        if self.job.status == JobStatus.RUNNING:
            with self._database.write() as session:
                stopping = queue.advance(session, self.job, JobStatus.STOPPING)
            self.job = stopping  # once it is committed: a row that was rolled back cannot be read any more
        if request is StopRequest.CANCEL:
            self._kill_at = time.monotonic() + STOP_GRACE_SECONDS
        self._process.send(SIGNALS[request])
        self._sent = request  # last: what fails above is tried again in the next round

    def _tell_hold_up(self) -> None:
        found = self._hold_ups.find(self.job)
        if found == self.job.held_up:
            return
        with self._database.write() as session:
            job, _ = hold(session, self._attempt)
            job.held_up = found
            session.add(job)
            queue.announce(session, job)
        logger.warning("job %s: %s", job.id, found["message"] if found else "it goes on", extra={"job_id": job.id})

    def _settle(self, *, planned: bool = False) -> None:
        """The process has been seen to end: now, and only now, the job has ended too, or waits to go on."""
        if self._is_ours():
            collect_halves(self._folder.job(self.job.key))  # outside of the transaction: files may be large
        with self._database.write() as session:
            job, attempt = hold(session, self._attempt)
            attempt.ended_at, attempt.exit_code = time.time(), self._process.exit_code
            session.add(attempt)
            end = End(self._damage or self._silence, self._killed_for_memory(), planned)
            settled = settle(session, self._folder, job, attempt, end)
        self.job = settled  # once it is committed, as in `_stop`
        logger.info("job %s is %s", self.job.id, self.job.status, extra={"action": "finish_job"})

    def _killed_for_memory(self) -> bool | None:
        """Whether the kernel has killed a process for want of memory since the child began; None where unknown."""
        before, now = self._oom_kills, count_oom_kills()
        return None if before is None or now is None else now > before


def _wanted(job: Job) -> StopRequest | None:
    if job.cancel_requested:
        return StopRequest.CANCEL
    if job.save_requested:
        return StopRequest.SAVE
    return StopRequest.PAUSE if job.paused else None
