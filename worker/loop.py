"""The worker's loop: one job at a time, one child per job."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path

from sqlalchemy.exc import OperationalError
from sqlmodel import select

from app import __version__
from app.core.database import Database
from app.core.errors import AppError
from app.core.jobs import queue
from app.core.jobs.models import Attempt, Job, WorkerState
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import JobKind, JobStatus
from app.core.paths import DataFolder, write_private
from app.core.settings import Settings
from worker.children import Children, kill_group
from worker.context import Assignment
from worker.gpu import Sampler
from worker.identity import ProcessIdentity
from worker.payload import build_payload
from worker.probe import Probe
from worker.readings import ReadingsThread, Running
from worker.rescue import rescue
from worker.supervisor import Supervisor

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
HEARTBEAT_SECONDS = 1.0
SHUTDOWN_SECONDS = 8.0  # `docker stop` grants 10


class Worker:
    """Claims jobs and supervises them. `run_once()` does what is due now and never waits."""

    def __init__(
        self, settings: Settings, database: Database, children: Children, sampler: Sampler, probe: Probe
    ) -> None:
        self._settings = settings
        self._database = database
        self._folder = DataFolder(settings.home)
        self._children = children
        self._probe = probe
        self._readings = ReadingsThread(database, sampler)
        self._supervisor: Supervisor | None = None
        self._stop = threading.Event()
        self._heartbeat_at = 0.0
        self._rescue_due = False

    def start(self) -> None:
        """Say that the worker is there, and put right what an earlier one left behind."""
        with self._database.write() as session:
            me = ProcessIdentity.of(os.getpid())
            state = session.get(WorkerState, 1) or WorkerState(
                pid=0, pid_started_at=0, boot_id="", version="", started_at=0, heartbeat_at=0
            )
            state.pid, state.pid_started_at, state.boot_id = me.pid, me.started_at, me.boot_id
            state.version, state.started_at, state.heartbeat_at = __version__, time.time(), time.time()
            state.capabilities = None  # of another installation, for all that is known
            session.add(state)
        self.rescue()
        self._readings.start()

    def run(self) -> None:
        """Work until told to stop. A database that does not answer costs a pause, never the running job."""
        while not self._stop.is_set():
            try:
                more = self.run_once()
            except OperationalError as error:
                logger.warning("the database did not answer; trying again: %s", error, extra={"action": "retry"})
                self._rescue_due = self._supervisor is None  # a claim may have been left half-way
                more = False
            if not more:
                self._stop.wait(POLL_SECONDS)
        self._shut_down()

    def stop(self) -> None:
        """Ask the loop to end. Safe in a signal handler."""
        self._stop.set()

    def run_once(self) -> bool:
        """One round: heartbeat, supervise or claim. Returns whether to go on at once."""
        self._beat()
        if self._rescue_due:
            self.rescue()
            self._rescue_due = False
        if self._supervisor is None:
            return self._claim()
        if self._supervisor.step():
            return False
        self._supervisor = None
        self._readings.running = None
        return True

    def rescue(self) -> None:
        """Jobs that an earlier worker had in hand go on or end; see `worker.rescue`."""
        rescue(self._database, self._folder)

    def _claim(self) -> bool:
        with self._database.read() as session:
            if session.exec(select(Job.id).where(Job.status == JobStatus.QUEUED).limit(1)).first() is None:
                self._children.ready_spare()
                self._probe.start()
                return False
        with self._database.write() as session:
            claimed = queue.claim_next(session)
        if claimed is None:
            return False
        self._launch(*claimed)
        return True

    def _launch(self, job: Job, attempt: Attempt) -> None:
        logger.info("job %s: attempt %s starts", job.id, attempt.number, extra={"action": "claim_job"})
        try:
            assignment = self._prepare(job, attempt)
            self._supervisor = self._supervise(job, attempt, assignment)
        except (AppError, OSError) as error:
            logger.exception("job %s could not start", job.id)
            advice = error.advice if isinstance(error, AppError) else "Look at the worker's log."
            failure = {"kind": "start", "message": f"The job could not start: {error}", "advice": advice}
            with self._database.write() as session:
                queue.advance(session, queue.get_job(session, job.key), JobStatus.FAILED, error=failure)
            return
        self._readings.running = Running(job.key, self._supervisor.pid)

    def _supervise(self, job: Job, attempt: Attempt, assignment: Assignment) -> Supervisor:
        """Start the child; one that cannot be put on record is ended again."""
        child = self._children.start(assignment)
        try:
            return Supervisor(self._database, self._folder, job, attempt, child)
        except BaseException:
            kill_group(child, signal.SIGKILL)
            child.wait()
            raise

    def _prepare(self, job: Job, attempt: Attempt) -> Assignment:
        """The attempt's folder and what the child is told. Raises: AppError, OSError."""
        folder = self._folder.job(job.key).resolve()
        attempt_folder = self._folder.attempt(job.key, attempt.number).resolve()
        attempt_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if job.kind == JobKind.TRAIN:
            write_private(folder / "spec.yaml", parse_spec(job.spec).to_yaml())
        log = folder / "train.log"
        with self._database.write() as session:
            payload = build_payload(session, self._folder, self._settings.cache, job)
            stored = session.get_one(Attempt, (job.key, attempt.number))
            stored.log_offset = log.stat().st_size if log.exists() else 0
            session.add(stored)
        spool = attempt_folder / "spool.jsonl"
        return Assignment(job.key, job.kind.value, attempt.number, str(folder), str(spool), str(log), payload)

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._heartbeat_at < HEARTBEAT_SECONDS:
            return
        self._heartbeat_at = now
        self._probe.collect()
        with self._database.write() as session:
            state = session.get_one(WorkerState, 1)
            state.heartbeat_at = time.time()
            session.add(state)

    def _shut_down(self) -> None:
        if self._supervisor is not None:
            self._supervisor.interrupt(SHUTDOWN_SECONDS)
            self._supervisor = None
        self._children.end_spare()
        self._probe.end()
        self._readings.stop()
        with self._database.write() as session:
            state = session.get_one(WorkerState, 1)
            state.heartbeat_at = 0.0  # said to be gone, rather than found to be silent
            session.add(state)


def build_worker(settings: Settings, database: Database) -> Worker:
    """A worker as `python -m worker` runs it."""
    folder = DataFolder(settings.home)
    children = Children(keep_spare=settings.spare_child, log=_spare_log(folder))
    probe = Probe(database, folder.home / "probe.log")
    return Worker(settings, database, children, Sampler(folder.home), probe)


def _spare_log(folder: DataFolder) -> Path:
    path = folder.home / "spare.log"
    path.unlink(missing_ok=True)
    return path
