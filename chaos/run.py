"""One chaos run from an empty data folder to a verdict on each invariant."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from chaos.client import NoAnswer
from chaos.driver import Driver
from chaos.evidence import Evidence
from chaos.invariants import Verdict, check_all
from chaos.plan import make_plan
from chaos.stack import NotStarted, Stack
from chaos.workload import prepare

SHOWN = 400  # characters of what is wrong


@dataclass(frozen=True, slots=True)
class Result:
    """What was done and what it came to."""

    seed: int
    driver: Driver
    verdicts: list[Verdict]
    stopped: str | None  # why the run could not go on to its end

    @property
    def broken(self) -> list[str]:
        """Each broken invariant with what broke it."""
        broken = [f"{verdict.name}: {each[:SHOWN]}" for verdict in self.verdicts for each in verdict.broken]
        return [f"the run could not go on: {self.stopped[:SHOWN]}", *broken] if self.stopped else broken


def run_chaos(home: Path, seed: int, kills: int, *, light: bool) -> Result:
    """Prepare, drive, stop, judge. No process is left behind, whatever happens."""
    stack = Stack(home, light)
    prepare(stack.database, stack.folder, light=light)
    driver = Driver(stack, seed, lambda line: print(line, file=sys.stderr, flush=True))
    stopped = None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        driver.run(make_plan(seed, kills))
    except (NotStarted, NoAnswer, RuntimeError) as error:
        stopped = str(error)
    finally:
        left_over = stack.left_over()
    verdicts = check_all(gather(driver, [] if stopped else left_over))
    return Result(seed, driver, verdicts, stopped)


def gather(driver: Driver, left_over: list[str]) -> Evidence:
    """What there is to judge by, once everything has stopped."""
    work = driver.work
    return Evidence(
        driver.stack.folder,
        driver.stack.database,
        jobs=work.jobs,
        twins=work.twins,
        merges=work.merges,
        unsure=driver.client.unsure,
        streamed=driver.follower.ids,
        resumed=driver.recovery.seconds,
        late=driver.recovery.late,
        left_over=left_over,
    )
