"""What is killed, and when: decided by the seed alone, before anything runs."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Target(StrEnum):
    """A process that can be killed."""

    CHILD = "child"
    WORKER = "worker"
    WEB = "web"


class Window(StrEnum):
    """The moment that a kill is meant for."""

    ANY = "any"
    CHECKPOINT = "checkpoint"  # child: a checkpoint or a training state lies half-written
    RENAME = "rename"  # child: a checkpoint has its name, and nobody has been told yet
    PRUNE = "prune"  # child: an old checkpoint is being removed
    FINAL = "final"  # child: the adapter lies half-written
    MERGE = "merge"  # child: the merged model lies half-written
    CLAIM = "claim"  # worker: a job is claimed, its process not on record
    INGEST = "ingest"  # worker: the child has just told something
    SETTLE = "settle"  # worker: the child has said how the job ended, and the job has not ended
    START = "start"  # worker, web: it has just been started
    SUBMIT = "submit"  # web: a job is being submitted
    UPLOAD = "upload"  # web: a dataset is half sent
    DOWNLOAD = "download"  # web: an artifact is half read


# How often each comes, among 100; in seconds the longest seeded delay from when the window is seen.
_SHARES: dict[tuple[Target, Window], tuple[int, float]] = {
    (Target.CHILD, Window.ANY): (9, 2.0),
    (Target.CHILD, Window.CHECKPOINT): (9, 0.003),
    (Target.CHILD, Window.RENAME): (5, 0.0),
    (Target.CHILD, Window.PRUNE): (4, 0.0),
    (Target.CHILD, Window.FINAL): (4, 0.003),
    (Target.CHILD, Window.MERGE): (4, 0.003),
    (Target.WORKER, Window.ANY): (8, 2.0),
    (Target.WORKER, Window.CLAIM): (8, 0.003),
    (Target.WORKER, Window.INGEST): (7, 0.12),
    (Target.WORKER, Window.SETTLE): (5, 0.05),
    (Target.WORKER, Window.START): (5, 1.0),
    (Target.WEB, Window.ANY): (10, 1.0),
    (Target.WEB, Window.START): (4, 1.0),
    (Target.WEB, Window.SUBMIT): (8, 0.04),
    (Target.WEB, Window.UPLOAD): (5, 0.02),
    (Target.WEB, Window.DOWNLOAD): (5, 0.02),
}


class Fault(StrEnum):
    """What goes wrong for some seconds without a kill."""

    DISK_FULL = "disk full"
    DATABASE_LOCKED = "database locked"


@dataclass(frozen=True, slots=True)
class Strike:
    """One kill: `delay_seconds` after its window is seen to be open."""

    target: Target
    window: Window
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault, for so long."""

    fault: Fault
    seconds: float


KILLS_PER_INJECTION = 15


def make_plan(seed: int, kills: int) -> list[Strike | Injection]:
    """`kills` strikes in seeded order, each kind by its share, and injections between them."""
    chance = random.Random(seed)
    kinds, shares = list(_SHARES), [share for share, _delay in _SHARES.values()]
    rounds = [kind for kind, share in zip(kinds, shares, strict=True) for _ in range(share * kills // sum(shares))]
    rounds += chance.choices(kinds, shares, k=kills - len(rounds))
    chance.shuffle(rounds)
    plan: list[Strike | Injection] = [_strike(chance, *kind) for kind in rounds]
    faults = [Fault.DISK_FULL, Fault.DATABASE_LOCKED]
    for number in range(kills // KILLS_PER_INJECTION):
        low = number * (KILLS_PER_INJECTION + 1)
        plan.insert(chance.randint(low, low + KILLS_PER_INJECTION), _injection(chance, faults[number % len(faults)]))
    return plan


def _strike(chance: random.Random, target: Target, window: Window) -> Strike:
    return Strike(target, window, round(chance.uniform(0, _SHARES[target, window][1]), 4))


def _injection(chance: random.Random, fault: Fault) -> Injection:
    return Injection(fault, round(chance.uniform(2.0, 8.0), 1))
