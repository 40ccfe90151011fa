"""One kill: aim at a process, wait for its window, kill it, start again what is missing."""

from __future__ import annotations

import random
import socket
import time
from typing import NamedTuple

from sqlmodel import col, select

from app.core.jobs.losses import LIMITS, Cause, count_losses
from app.core.jobs.models import Job
from app.core.jobs.status import ACTIVE, JobKind
from chaos.plan import Strike, Target, Window
from chaos.recovery import Recovery
from chaos.stack import Stack
from chaos.windows import Lookout
from chaos.workload import Workload

BUSY_SECONDS = 20.0  # until a job is in hand that may be hit
TICK_SECONDS = 0.02
_FILL_SECONDS = 1.0
_TIMED = frozenset({Window.ANY, Window.START})


class Outcome(NamedTuple):
    """Of a strike: whether there was anything to kill, and whether that met the window."""

    killed: bool
    met: bool


class Striker:
    """Kills what the plan says, and takes note of how long things take to go on."""

    def __init__(self, stack: Stack, work: Workload, recovery: Recovery, seed: int) -> None:
        self.stack, self._work, self._recovery = stack, work, recovery
        self._lookout = Lookout(stack, self._look_on)
        self._chance = random.Random(seed)
        self._fill_at = 0.0
        self.web_seconds: list[float] = []  # from a kill of the web process until it answers again

    def strike(self, strike: Strike) -> Outcome:
        """Kill what is meant, and start it again."""
        return self._strike_web(strike) if strike.target is Target.WEB else self._strike_job(strike)

    def _strike_job(self, strike: Strike) -> Outcome:
        """Kill child or worker as its window opens."""
        if strike.window is Window.MERGE:
            self._work.merge_one()
        if strike.window in _TIMED:
            job = self._busy_job()
            if strike.window is Window.START and job is not None:
                self._kill(strike.target, job)
            self.wait(strike.delay_seconds)
            job = self._busy_job()
            killed = job is not None and self._kill(strike.target, job)
            return Outcome(killed, killed)
        self.stack.wait_for_worker()
        kind = JobKind.MERGE if strike.window is Window.MERGE else JobKind.TRAIN
        sight = self._lookout.wait(strike, lambda job_id: self._is_fair(job_id, kind))
        if sight is None:
            return Outcome(False, False)
        job = self._job(sight.job_id)
        killed = self.stack.kill(strike.target, job) is not None
        met = killed and self._lookout.was_met(strike.window, sight)
        self._after_kill(job, killed=killed)
        return Outcome(killed, met)

    def _kill(self, target: Target, job: Job) -> bool:
        self.stack.wait_for_worker()
        killed = self.stack.kill(target, job) is not None
        self._after_kill(job, killed=killed)
        return killed

    def _after_kill(self, job: Job, *, killed: bool) -> None:
        if killed:
            self._recovery.hit(job)
        self.stack.start()

    def _strike_web(self, strike: Strike) -> Outcome:
        """Kill the web process while it is asked for something."""
        self.stack.wait_for_web()
        asked = self._ask(strike.window)
        time.sleep(strike.delay_seconds)
        killed = self.stack.kill(Target.WEB) is not None
        if asked is not None:
            asked.close()
        began = time.monotonic()
        self.stack.start()
        self.stack.wait_for_web()
        self.web_seconds.append(time.monotonic() - began)
        return Outcome(killed, killed)

    def _ask(self, window: Window) -> socket.socket | None:
        if window is Window.START:
            self.stack.kill(Target.WEB)
            self.stack.start()
        elif window is Window.SUBMIT:
            self._work.submit_beside()
        elif window is Window.UPLOAD:
            return self._work.client.begin_upload(f"half-{self._chance.randrange(10**6)}")
        elif window is Window.DOWNLOAD:
            return self._work.client.begin_download(self._chance.choice(self._work.completed()), "adapter")
        return None

    def _busy_job(self) -> Job | None:
        """A training or a merge that a process works on, once there is one that may be hit."""
        deadline = time.monotonic() + BUSY_SECONDS
        while time.monotonic() < deadline:
            with self.stack.database.read() as session:
                kinds = col(Job.kind).in_((JobKind.TRAIN, JobKind.MERGE))
                job = session.exec(select(Job).where(kinds, col(Job.status).in_(ACTIVE))).first()
            if job is not None and self.can_lose(job) and self.stack.find_child(job) is not None:
                return job
            self._look_on()
            time.sleep(TICK_SECONDS)
        return None

    def _is_fair(self, job_id: int, kind: JobKind) -> bool:
        job = self._job(job_id)
        return job.kind == kind and self.can_lose(job)

    def _job(self, job_id: int) -> Job:
        with self.stack.database.read() as session:
            return session.get_one(Job, job_id)

    def may_lose(self) -> bool:
        return any(self.can_lose(job) for job in self._work.open_jobs())

    def can_lose(self, job: Job) -> bool:
        """Whether one more loss does not end it for good."""
        with self.stack.database.read() as session:
            losses = count_losses(session, job).get(Cause.PROCESS_LOST, 0)
        return losses < LIMITS[Cause.PROCESS_LOST].times - 1

    def wait(self, seconds: float) -> None:
        """Look on meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._recovery.look()
            time.sleep(TICK_SECONDS)

    def _look_on(self) -> None:
        """While a window is waited for: it opens only where jobs run."""
        self._recovery.look()
        if time.monotonic() > self._fill_at:
            self._work.fill()
            self._fill_at = time.monotonic() + _FILL_SECONDS
