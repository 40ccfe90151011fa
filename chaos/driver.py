"""The run: strike after strike as planned, everything started again, and in the end nothing left to do."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from chaos.client import Client, Follower
from chaos.faults import NotInjected, inject
from chaos.plan import Injection, Strike, Target
from chaos.recovery import Recovery
from chaos.stack import Stack
from chaos.striker import TICK_SECONDS, Striker
from chaos.workload import Workload

DRAIN_SECONDS = 240.0
MISFIRES = 10  # of each kind: strikes that found nothing to kill are tried again later


@dataclass(slots=True)
class Tally:
    """What was done: kills by `target:window`, those that met their window, and what could not be done."""

    kills: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    misfires: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    notes: set[str] = field(default_factory=set)
    stop_seconds: float | None = None


class Driver:
    """Carries out a plan on a data folder that is prepared."""

    def __init__(self, stack: Stack, seed: int, say: Callable[[str], None]) -> None:
        self.stack, self._say = stack, say
        self.client = Client(stack.folder.server_json)
        self.work = Workload(stack.database, self.client, stack.light)
        self.follower = Follower(self.client)
        self.recovery = Recovery(stack)
        self.tally = Tally()
        self.striker = Striker(stack, self.work, self.recovery, seed)
        self._began = time.monotonic()

    def run(self, plan: list[Strike | Injection]) -> None:
        """Twins first, then the plan, then wait until every job has ended, then stop as a machine does."""
        self.stack.start()
        self.stack.wait_for_web()
        self.follower.start()
        self.work.run_twins()
        self._log("the undisturbed twins are done")
        left = deque(plan)
        while left:
            self.work.fill()
            step = self._next(left)
            if step is not None:
                self._do(step, left)
        self._drain()
        self.tally.stop_seconds = self.stack.stop()

    def _next(self, left: deque[Strike | Injection]) -> Strike | Injection | None:
        """The first that is possible now, a moment later None: a job that was lost often enough is left to end."""
        for index, step in enumerate(left):
            if isinstance(step, Injection) or step.target is Target.WEB or self.striker.may_lose():
                del left[index]
                return step
        self.striker.wait(0.2)
        return None

    def _do(self, step: Strike | Injection, left: deque[Strike | Injection]) -> None:
        if isinstance(step, Injection):
            self._inject(step)
            return
        killed, met = self.striker.strike(step)
        name = f"{step.target}:{step.window}"
        if not killed:
            self.tally.misfires[name] += 1
            self._log(f"{name} found nothing to kill")
            if self.tally.misfires[name] <= MISFIRES:
                left.append(step)
            return
        self.tally.kills[name] += 1
        self.tally.met[name] += met
        self._log(f"{sum(self.tally.kills.values())}: {name}{'' if met else ', beside its window'}")

    def settle(self) -> None:
        """Wait until what was hit goes on."""
        while not self.recovery.look():
            time.sleep(TICK_SECONDS)

    def _inject(self, injection: Injection) -> None:
        try:
            inject(injection, self.stack.home, self.stack.database, self._wait_unwatched)
            self.tally.injected[injection.fault] += 1
            self._log(f"{injection.fault} for {injection.seconds} s")
        except NotInjected as reason:
            self.tally.notes.add(f"{injection.fault} was not injected: {reason}")
        self.recovery.postpone()

    def _drain(self) -> None:
        self.work.join()
        deadline = time.monotonic() + DRAIN_SECONDS
        while self.work.open_jobs() and time.monotonic() < deadline:
            self.striker.wait(TICK_SECONDS)
        while not self.recovery.look() and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS)
        self.striker.wait(1.0)  # for what the stream has still to bring
        self.follower.stop()

    def _wait_unwatched(self, seconds: float) -> None:
        """Nothing can go on meanwhile, so nothing is expected to."""
        time.sleep(seconds)

    def _log(self, text: str) -> None:
        self._say(f"{time.monotonic() - self._began:7.1f} s  {text}")
