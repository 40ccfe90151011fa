"""The worker's loop: one job of each lane at a time, one child per job."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sqlalchemy.exc import OperationalError

from app import __version__
from app.core.database import Database
from app.core.errors import AppError
from app.core.jobs import queue
from app.core.jobs.models import Attempt, Job, WorkerState
from app.core.jobs.queries import likely_model_path
from app.core.jobs.status import JobStatus, Lane
from app.core.paths import DataFolder
from app.core.settings import Settings
from worker.children import Children
from worker.context import INTERRUPT_SECONDS
from worker.gpu import Sampler
from worker.identity import ProcessIdentity
from worker.launch import Launcher
from worker.probe import Probe
from worker.readings import ReadingsThread, Running
from worker.rescue import rescue
from worker.supervisor import Supervisor

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
HEARTBEAT_SECONDS = 1.0


class Worker:
    """Claims jobs of its lanes and supervises them. `run_once()` does what is due now and never waits."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        children: Children,
        sampler: Sampler,
        probe: Probe,
        lanes: Sequence[Lane] = tuple(Lane),
    ) -> None:
        self._lanes = lanes
        self._database = database
        self._folder = DataFolder(settings.home)
        self._children = children
        self._launcher = Launcher(database, self._folder, settings.cache, children)
        self._probe = probe
        self._readings = ReadingsThread(database, sampler)
        self._supervisors: dict[Lane, Supervisor] = {}
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
                self._rescue_due = True  # a claim may have been left half-way
                more = False
            if not more:
                self._stop.wait(POLL_SECONDS)
        self._shut_down()

    def stop(self) -> None:
        """Ask the loop to end. Safe in a signal handler."""
        self._stop.set()

    def run_once(self) -> bool:
        """One round: heartbeat, then supervise or claim in each lane. Returns whether to go on at once."""
        self._beat()
        if self._rescue_due:
            self.rescue()
            self._rescue_due = False
        busy = [self._work(lane) for lane in self._lanes]
        if Lane.GPU not in self._supervisors:
            self._get_ready()
        return any(busy)

    def rescue(self) -> None:
        """Jobs that an earlier worker had in hand go on or end; see `worker.rescue`."""
        rescue(self._database, self._folder, [supervisor.job.key for supervisor in self._supervisors.values()])

    def _work(self, lane: Lane) -> bool:
        """What is due in a lane. Returns whether there may be more at once."""
        supervisor = self._supervisors.get(lane)
        if supervisor is None:
            return self._claim(lane)
        if supervisor.step():
            return False
        del self._supervisors[lane]
        if lane is Lane.GPU:
            self._readings.running = None
        return True

    def _get_ready(self) -> None:
        """Nothing trains, and nothing can be claimed that would: prepare for what may come."""
        self._children.ready_spare()
        if not self._supervisors:
            self._probe.start()

    def _claim(self, lane: Lane) -> bool:
        with self._database.read() as session:
            if queue.find_next(session, lane) is None:
                return False
        with self._database.write() as session:
            claimed = queue.claim_next(session, lane)
        if claimed is None:
            return False
        self._launch(lane, *claimed)
        return True

    def _launch(self, lane: Lane, job: Job, attempt: Attempt) -> None:
        logger.info("job %s: attempt %s starts", job.id, attempt.number, extra={"action": "claim_job"})
        try:
            supervisor = self._launcher.launch(lane, job, attempt)
        except (AppError, OSError) as error:
            logger.exception("job %s could not start", job.id)
            advice = error.advice if isinstance(error, AppError) else "Look at the worker's log."
            failure = {"kind": "start", "message": f"The job could not start: {error}", "advice": advice}
            with self._database.write() as session:
                queue.advance(session, queue.get_job(session, job.key), JobStatus.FAILED, error=failure)
            return
        self._supervisors[lane] = supervisor
        if lane is Lane.GPU:
            self._readings.running = Running(job.key, supervisor.pid)

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
        give_up_at = time.monotonic() + INTERRUPT_SECONDS
        for supervisor in self._supervisors.values():
            supervisor.ask_to_stop()  # all at once, so that they end beside each other
        for supervisor in self._supervisors.values():
            supervisor.interrupt(max(0.0, give_up_at - time.monotonic()))
        self._supervisors.clear()
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
    children = Children(
        keep_spare=settings.spare_child, log=_spare_log(folder), likely_model=partial(_likely_model, database)
    )
    probe = Probe(database, folder.home / "probe.log")
    return Worker(settings, database, children, Sampler(folder.home), probe)


def _likely_model(database: Database) -> Path | None:
    with database.read() as session:
        path = likely_model_path(session)
    return None if path is None else Path(path)


def _spare_log(folder: DataFolder) -> Path:
    path = folder.home / "spare.log"
    path.unlink(missing_ok=True)
    return path
