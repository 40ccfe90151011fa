"""Whether the job that stands in the form would fit: its plan, as the region beside the fields shows it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.errors import Conflict, Fault, InvalidInput
from app.core.jobs.spec import parse_spec
from app.core.jobs.warnings import SpecWarning
from app.core.planning.history import plan_on_box
from app.core.planning.plan import Plan
from app.jobs.forms import CARD, parse_form
from app.web.dependencies import FolderDep, SessionDep
from app.web.forms import Typed
from app.web.templating import render

router = APIRouter(include_in_schema=False)

CARDS_GIB = (8, 12, 16, 24, 48, 80)  # of common cards
_GIB = 1 << 30
_LARGEST_GIB = 10_000
_BESIDE_THEIR_FIELD = {"attention_only"}  # warnings that the form shows there already
_UNKNOWN = "?"  # in place of a dataset that is not chosen yet: no name is spelt so


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the bar, in thousandths of its length."""

    name: str
    start: float
    width: float


@dataclass(frozen=True, slots=True)
class Problem:
    """What is in the way of a plan, and the values that would mend it, where they are known."""

    message: str
    fix: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fit:
    """The plan with its bar, or what is in the way of one."""

    plan: Plan | None = None
    problems: Sequence[Problem] = ()

    @property
    def segments(self) -> list[Segment]:
        """The components from the left; the bar is as long as the card or the peak, whichever is more."""
        if self.plan is None or not self.plan.components or not self.plan.peak_bytes:
            return []
        return list(_lay_out(self.plan.components, self._length))

    @property
    def limit(self) -> float | None:
        """Where the card's memory ends on the bar, in thousandths; None without a card."""
        if self.plan is None or self.plan.vram_bytes is None or not self._length:
            return None
        return round(1000 * self.plan.vram_bytes / self._length, 2)

    @property
    def warnings(self) -> list[SpecWarning]:
        """Those that are not shown beside their field."""
        return [each for each in self.plan.warnings if each.code not in _BESIDE_THEIR_FIELD] if self.plan else []

    @property
    def _length(self) -> int:
        return max(self.plan.peak_bytes or 0, self.plan.vram_bytes or 0) if self.plan else 0


@router.post("/jobs/new/fit")
def show_fit(request: Request, typed: Typed, session: SessionDep, folder: FolderDep) -> Response:
    """The region, as the form stands now."""
    return render(request, "jobs/_fit.html", {"fit": describe_fit(session, folder.home, typed)})


def describe_fit(session: Session, home: Path, typed: Mapping[str, str]) -> Fit:
    """`typed` are the form's values by name. What cannot be planned is said, never raised."""
    try:
        vram = read_card(typed.get(CARD, ""))
        spec = parse_spec(parse_form({**typed, "dataset": typed.get("dataset") or _UNKNOWN}))
        return Fit(plan_on_box(session, home, spec, vram_bytes=vram))
    except InvalidInput as error:
        return Fit(problems=[Problem(_sentence(fault), fault.fix or {}) for fault in error.faults])
    except Conflict as error:
        return Fit(problems=[Problem(error.message, {})])


def read_card(typed: str) -> int | None:
    """Bytes of a card that was typed in GiB; None where none was. Raises: InvalidInput."""
    if not typed.strip():
        return None
    try:
        size = float(typed.strip().replace(",", "."))
    except ValueError:
        size = math.nan
    if not 0 < size <= _LARGEST_GIB:
        raise InvalidInput(f"{typed.strip()[:40]!r} is not the size of a card in GiB", field="The card to compare with")
    return round(size * _GIB)


def _sentence(fault: Fault) -> str:
    place = f"{fault.field}: " if fault.field else ""
    return f"{place}{fault.message}".replace("`", "").rstrip(".") + "."


def _lay_out(components: Mapping[str, int], length: int) -> Iterator[Segment]:
    start = 0.0
    for name, size in components.items():
        width = 1000 * size / length
        yield Segment(name, round(start, 2), round(width, 2))
        start += width
