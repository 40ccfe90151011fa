"""What a sweep would take: each job's fit and time, and the time of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import Session

from app.core.errors import Conflict, InvalidInput
from app.core.jobs.spec import parse_spec
from app.core.jobs.sweep import Variant, check_sweep
from app.core.planning.history import plan_on_box
from app.core.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class Planned:
    """One job of the sweep; `plan` is None where `reason` says why."""

    variant: Variant
    plan: Plan | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """{differences, verdict, peak_bytes, vram_bytes, steps, seconds, reason}."""
        told = {name: getattr(self.plan, name, None) for name in ("verdict", "peak_bytes", "vram_bytes")}
        schedule = self.plan.schedule if self.plan else None
        steps, seconds = (getattr(schedule, name, None) for name in ("steps", "seconds"))
        return {
            "differences": self.variant.differences, **told, "steps": steps, "seconds": seconds, "reason": self.reason
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """`seconds` is what the jobs whose time is known take together."""

    jobs: Sequence[Planned]

    @property
    def seconds(self) -> int:
        return sum(each.plan.schedule.seconds or 0 for each in self.jobs if each.plan)

    @property
    def unknown(self) -> int:
        """How many jobs take nobody knows how long."""
        return sum(each.plan is None or each.plan.schedule.seconds is None for each in self.jobs)

    @property
    def too_large(self) -> int:
        """How many jobs do not fit."""
        return sum(each.plan is not None and each.plan.verdict == "does not fit" for each in self.jobs)


def plan_sweep(session: Session, home: Path, variants: Sequence[Variant], vram_bytes: int | None = None) -> SweepPlan:
    """Raises: InvalidInput with every fault of every job."""
    faults = check_sweep(session, variants)
    if faults:
        raise InvalidInput(faults)
    return SweepPlan([_plan(session, home, each, vram_bytes) for each in variants])


def _plan(session: Session, home: Path, variant: Variant, vram_bytes: int | None) -> Planned:
    try:
        return Planned(variant, plan_on_box(session, home, parse_spec(variant.values), vram_bytes=vram_bytes))
    except (InvalidInput, Conflict) as error:  # a model of a kind that the plan does not know, or that is not there yet
        return Planned(variant, None, error.message)
