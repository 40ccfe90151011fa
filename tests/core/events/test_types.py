"""Each kind of event is documented with the fields that it really has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from sqlmodel import Session

from app.core.events.log import read_after
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind, JobStatus

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / "docs" / "events.md").read_text()
_SECTION = re.compile(r"^### `(\w+)`$(.*?)(?=^### |\Z)", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
_ENTERING = ("phase", "enter")  # what a job's code calls to begin a phase
SECTIONS = dict(_SECTION.findall(DOCUMENT))


def _fields(kind: EventKind) -> set[str]:
    return set(_FIELD.findall(SECTIONS[kind]))


def test_each_kind_has_its_section_in_order_and_no_section_is_left_over() -> None:
    assert _SECTION.findall(DOCUMENT) == list(SECTIONS.items()), "a kind has two sections"
    assert list(SECTIONS) == list(EventKind)


def test_each_section_has_a_sentence_and_its_fields() -> None:
    for kind in EventKind:
        sentence, _, table = SECTIONS[kind].strip().partition("\n\n")
        assert sentence.endswith("."), kind
        assert table.startswith("| Field | Meaning |"), kind
        assert _fields(kind), kind


def test_the_short_form_in_the_code_names_the_same_fields() -> None:
    """Of `metric` the code gives examples only."""
    source = (ROOT / "app" / "core" / "events" / "types.py").read_text()
    short = dict(re.findall(r'= "(\w+)"  # (?:a reading: )?\{(.*?)\}', source))
    assert set(short) == set(EventKind)
    for kind, fields in short.items():
        named = {field.partition(":")[0].strip() for field in fields.split(",") if "…" not in field}
        documented = _fields(EventKind(kind))
        assert named <= documented if kind == EventKind.METRIC else named - {"base | tuned"} == documented, kind


def test_status_and_finished_hold_what_is_documented(session: Session) -> None:
    job = queue.enqueue(session, Job(name="x", kind=JobKind.TRAIN, created_at=0))
    queue.advance(session, job, JobStatus.CANCELLED)
    session.flush()
    events = {event.kind: event.data for event in read_after(session, 0)}
    for kind in (EventKind.STATUS, EventKind.FINISHED):
        assert set(events[kind]) == _fields(kind)


def test_states_and_kinds_of_job_are_documented() -> None:
    for name in [*JobStatus, *JobKind]:
        assert f"`{name}`" in SECTIONS[EventKind.STATUS]


def test_phases_that_the_worker_enters_are_documented() -> None:
    entered: set[str] = set()
    for path in (ROOT / "worker").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _ENTERING:
                entered |= {each.value for each in node.args if isinstance(each, ast.Constant)}
    assert {"train", "download"} <= entered
    assert entered == set(re.findall(r"`(\w+)`", SECTIONS[EventKind.PHASE])) - {"phase"}
