"""What stands beside the button of the new-job form: the place in the queue, and the job as a file and as a command."""

from __future__ import annotations

import base64
import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.errors import InvalidInput
from app.core.jobs.expected_start import Start, next_start
from app.core.jobs.queries import count_queued, gpu_occupant, worker_view
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.jobs.status import GPU_KINDS
from app.core.jobs.sweep_axes import Axes, read_axes
from app.jobs.forms import NAME, SWEEP, expand_form, parse_form
from app.web.dependencies import SessionDep
from app.web.forms import Typed
from app.web.templating import render

router = APIRouter(include_in_schema=False)

FILENAME = "loradeck-job.yaml"
_END = "YAML"  # ends the text in the shell; a line of a dumped spec is `field: value`, `- value` or indented
_AT_ONCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """`position` is the place from 1; `start` is None while the queue is paused."""

    position: int
    start: Start | None
    at_once: bool  # nothing is before it
    worker: bool = True  # whether one runs, without which nothing starts

    @property
    def ordinal(self) -> str:
        """As in `2nd`."""
        teens = 10 <= self.position % 100 <= 20
        return f"{self.position}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(self.position % 10, 'th')}"


@dataclass(frozen=True, slots=True)
class Command:
    """The spec's YAML and what to type into a shell, on a machine where `loradeck` reaches this dashboard."""

    yaml: str
    name: str
    axes: Axes = field(default_factory=dict)  # of a sweep
    filename: str = FILENAME

    @property
    def text(self) -> str:
        """One command that brings its YAML along."""
        named = f" --name {shlex.quote(self.name)}" if self.name else ""
        over = "".join(f" --over {shlex.quote(f'{name}={json.dumps(list(each))}')}" for name, each in self.axes.items())
        verb = "sweep" if self.axes else "submit"
        return f"loradeck jobs {verb} -{named}{over} <<'{_END}'\n{self.yaml}{_END}\n"

    @property
    def file_link(self) -> str:
        """A link that holds the file itself: what stands in the form now, without a script."""
        return "data:application/yaml;base64," + base64.b64encode(self.yaml.encode()).decode("ascii")


@dataclass(frozen=True, slots=True)
class Launch:
    """`command` is None while something is wrong with the fields."""

    place: Place
    command: Command | None
    jobs: int = 1  # that the button queues


@router.post("/jobs/new/launch")
def show_launch(request: Request, typed: Typed, session: SessionDep) -> Response:
    """The region, as the form stands now."""
    return render(request, "jobs/_launch.html", {"launch": describe_launch(session, typed)})


def describe_launch(session: Session, typed: Mapping[str, str]) -> Launch:
    """`typed` are the form's values by name."""
    return Launch(describe_place(session), find_command(typed), _count_jobs(typed))


def describe_place(session: Session) -> Place:
    """Of a job that were queued now, among those that wait for the GPU."""
    start, waiting = next_start(session), count_queued(session, GPU_KINDS)
    free = waiting == 0 and gpu_occupant(session) is None
    at_once = free and start is not None and start.at - time.time() < _AT_ONCE_SECONDS
    return Place(waiting + 1, start, at_once, bool(worker_view(session)["alive"]))


def find_command(typed: Mapping[str, str]) -> Command | None:
    """None where what was typed is not valid yet."""
    try:
        axes = read_axes(typed.get(SWEEP, ""))
        return make_command(parse_spec(parse_form(typed)), typed.get(NAME, ""), axes)
    except InvalidInput:
        return None


def make_command(spec: TrainingSpec, name: str, axes: Axes = MappingProxyType({})) -> Command:
    """`name` is the job's, as it was typed."""
    return Command(spec.to_yaml(), " ".join(name.split()), axes)


def _count_jobs(typed: Mapping[str, str]) -> int:
    """One while the sweep field is empty, or not right yet."""
    try:
        return len(expand_form(typed)) if typed.get(SWEEP, "").strip() else 1
    except InvalidInput:
        return 1
