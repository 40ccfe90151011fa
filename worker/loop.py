"""The worker's loop: one job of each lane at a time, one child per job."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from sqlalchemy.exc import OperationalError

from app.core.database import Database
from app.core.errors import AppError
from app.core.jobs import queue
from app.core.jobs.claims import find_next
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import Lane
from app.core.paths import DataFolder
from app.core.settings import Settings
from worker.artifacts.disk import can_start
from worker.attempts import hold
from worker.children import Children
from worker.context import INTERRUPT_SECONDS
from worker.gpu import Sampler
from worker.lanes import lane_of
from worker.launch import Launcher
from worker.notifier import Notifier, NotifierThread
from worker.presence import Deposed, Presence
from worker.probe import Probe
from worker.readings import ReadingsThread, Running
from worker.rescue import Rescue
from worker.retention import Retention, RetentionThread, Rules
from worker.settle import settle_unstarted
from worker.supervisor import Supervisor

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
HEARTBEAT_SECONDS = 1.0
RETRY_SECONDS = 1.0  # after the database did not answer, or had no room


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
        self._presence = Presence(database)
        self._rescue = Rescue(database, self._folder, self._launcher)
        self._probe = probe
        self._readings = ReadingsThread(database, sampler)
        self._retention = RetentionThread(Retention(database, Rules.of(settings)))
        self._notifications = NotifierThread(Notifier(database, self._folder, settings.notify_hosts))
        self._supervisors: dict[Lane, Supervisor] = {}
        self._stop = threading.Event()
        self._heartbeat_at = 0.0
        self._rescue_due = False

    def start(self) -> None:
        """Say that the worker is there, and go on with what an earlier one left behind."""
        self._rescue = replace(self._rescue, adopts=self._presence.enter())
        self.rescue()
        self._presence.own_children()
        self._rescue = replace(self._rescue, adopts=True)
        self._readings.start()
        self._retention.start()
        self._notifications.start()

    def run(self) -> None:
        """Work until told to stop. A database that does not answer costs a pause, never the running job."""
        while not self._stop.is_set():
            try:
                pause = 0.0 if self.run_once() else POLL_SECONDS
            except OperationalError as error:
                logger.warning("the database did not answer; trying again: %s", error, extra={"action": "retry"})
                self._rescue_due = True  # a claim may have been left half-way
                pause = RETRY_SECONDS
            except Deposed as error:
                logger.error("%s It ends.", error.message, extra={"action": "deposed"})
                break
            self._stop.wait(pause)
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
        in_hand = [supervisor.job.key for supervisor in self._supervisors.values()]
        for supervisor in self._rescue.run(in_hand):
            self._supervise(supervisor)

    def _supervise(self, supervisor: Supervisor) -> None:
        lane = lane_of(supervisor.job)
        if lane in self._supervisors:  # a second worker has claimed it beside this one's
            supervisor.interrupt(INTERRUPT_SECONDS)
            return
        self._supervisors[lane] = supervisor
        if lane is Lane.GPU:
            self._readings.running = Running(supervisor.job.key, supervisor.pid)

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
            if find_next(session, lane) is None:
                return False
        if not can_start(self._folder.home):  # it waits in the queue: a process that cannot write is lost
            return False
        with self._database.write() as session:
            claimed = queue.claim_next(session, lane)
        if claimed is None:
            return False
        self._launch(*claimed)
        return True

    def _launch(self, job: Job, attempt: Attempt) -> None:
        logger.info("job %s: attempt %s starts", job.id, attempt.number, extra={"action": "claim_job"})
        try:
            self._supervise(self._launcher.launch(job, attempt))
        except (AppError, OSError) as error:
            logger.exception("job %s could not start", job.id)
            with self._database.write() as session:
                settle_unstarted(session, hold(session, attempt)[0], error)

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._heartbeat_at < HEARTBEAT_SECONDS:
            return
        self._heartbeat_at = now
        self._probe.collect()
        self._presence.beat()

    def _shut_down(self) -> None:
        """Children are asked all at once, so that they end beside each other."""
        give_up_at = time.monotonic() + INTERRUPT_SECONDS
        supervisors = list(self._supervisors.values())
        self._supervisors.clear()
        for supervisor in supervisors:
            _try_to(supervisor.ask_to_stop)
        for supervisor in supervisors:
            _try_to(partial(supervisor.interrupt, max(0.0, give_up_at - time.monotonic())))
        self._children.end_spare()
        self._probe.end()
        self._notifications.stop()
        self._retention.stop()
        self._readings.stop()
        _try_to(self._presence.leave)


def _try_to(put_on_record: Callable[[], None]) -> None:
    """What a database that does not answer keeps from being done is left to the next worker."""
    try:
        put_on_record()
    except (OperationalError, Deposed) as error:
        logger.warning("not all was put on record while the worker stopped: %s", error, extra={"action": "stop"})
