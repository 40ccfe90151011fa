"""How a training goes: its phases with the one in hand, and what in its curves deserves a look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlmodel import Session, col, select

from app.core.artifacts.models import Artifact
from app.core.events.models import Event
from app.core.events.types import EventKind
from app.core.jobs.models import Job
from app.core.jobs.status import ENDED, JobKind
from app.core.metrics.store import read_series

PHASES = ("download", "load", "tokenize", "train", "eval", "save")
RISING_EVALS = 3
_READ_EVENTS = 2000


@dataclass(frozen=True, slots=True)
class Phase:
    """`state`: done, current, waiting, or skipped where the job went past it. `seconds`: spent in it, where known."""

    name: str
    state: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Alert:
    """What deserves a look. `keep`: the checkpoint that is worth keeping, where it is there and not kept yet."""

    message: str
    keep: Artifact | None = None


def list_phases(session: Session, job: Job) -> list[Phase]:
    """Of a training that has begun, else none. Eval and save come again and again, so their times are sums."""
    if job.kind != JobKind.TRAIN or not job.attempts:
        return []
    of_job = select(Event).where(Event.job_id == job.id, Event.kind == EventKind.PHASE.value)
    newest = session.exec(of_job.order_by(col(Event.id).desc()).limit(_READ_EVENTS)).all()
    spent = _spent([*reversed(newest)], job.finished_at)
    current = job.phase if job.status not in ENDED else None
    if not spent and current is None:
        return []  # it ended long ago, and what it went through was dropped
    at = PHASES.index(current) if current in PHASES else -1
    reached = max((PHASES.index(name) for name in spent if name in PHASES), default=-1)
    return [
        Phase(name, _state(index, at, reached, name in spent), spent.get(name)) for index, name in enumerate(PHASES)
    ]


def _state(index: int, at: int, reached: int, seen: bool) -> str:
    if index == at:
        return "current"
    if seen:
        return "done"
    return "skipped" if index < max(at, reached) else "waiting"


def _spent(events: Sequence[Event], end: float | None) -> dict[str, float]:
    """Seconds by phase; that of the last one only where its end is known."""
    spent: dict[str, float] = {}
    ends = [*(event.time for event in events[1:]), end]
    for event, until in zip(events, ends, strict=False):  # without events there is an end too many
        name = event.data["phase"]
        spent[name] = spent.get(name, 0.0) + (0.0 if until is None else max(0.0, until - event.time))
    return spent


def find_alerts(session: Session, job: Job, artifacts: Sequence[Artifact]) -> list[Alert]:
    """Of a training: an eval loss that rises, a loss that is no number any more."""
    if job.kind != JobKind.TRAIN or not job.attempts:
        return []
    evals = [(step, value) for step, value in read_series(session, job.key, "eval_loss").get("eval_loss", []) if step]
    alerts = []
    broken = next((step for step, value in evals if value is None), None)
    if broken is not None:
        message = (
            f"The eval loss is no finite number since step {broken:,}: lower the learning rate, or check the data."
        )
        alerts.append(Alert(message))
    finite = [(step, value) for step, value in evals if value is not None]
    last = [value for _, value in finite[-RISING_EVALS - 1 :]]
    if len(last) > RISING_EVALS and all(later > earlier for earlier, later in pairwise(last)):
        best, loss = min(finite, key=lambda each: each[1])
        there = (each for each in artifacts if each.kind == "checkpoint" and each.step == best and not each.kept)
        message = (
            f"The eval loss has been rising for {RISING_EVALS} evals; it was lowest at step {best:,} ({loss:.4g})."
        )
        alerts.append(Alert(message, next(there, None)))
    return alerts
