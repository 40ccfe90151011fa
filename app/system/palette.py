"""The palette (Ctrl+K): pages, jobs, datasets, models and actions, searched here, so that no page carries them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlmodel import Session, col, select

from app.core.datasets.models import Dataset
from app.core.jobs.listing import list_jobs
from app.core.jobs.models import Job
from app.core.jobs.queue_state import get_queue
from app.core.jobs.status import JobKind, status_words
from app.core.models.models import BaseModel
from app.core.table import as_id
from app.web.dependencies import SessionDep
from app.web.identities import identity_of
from app.web.policy import POLICY
from app.web.templating import render

router = APIRouter(include_in_schema=False)

PAGES = (
    ("Dashboard", "show_dashboard"),
    ("Jobs", "list_jobs"),
    ("New job", "new_job"),
    ("Queue", "show_queue"),
    ("Datasets", "show_datasets"),
    ("Models", "show_models"),
    ("Artifacts", "list_all_artifacts"),
    ("Playground", "show_playground"),
    ("GPU and host", "show_gpu"),
    ("Settings", "show_settings"),
)
_JOBS = 8
_OTHERS = 4
_ALL_KINDS = tuple(kind for kind in JobKind if kind != JobKind.PREVIEW)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `post`: choosing it sends a form; without an address it is done by the page's own script."""

    label: str
    note: str
    address: str = ""
    post: bool = False
    script: str = ""


@router.get("/palette")
def search_palette(request: Request, session: SessionDep, q: str = "") -> Response:
    """What the typed text could mean: by part of a name, a job also by its number."""
    typed = q.strip()[:200]
    context = {"entries": [*_find(request, session, typed)], "typed": typed}
    return render(request, "system/_palette.html", context)


def _find(request: Request, session: Session, typed: str) -> Iterator[Entry]:
    url = request.app.url_path_for
    pages = (Entry(label, "page", url(name)) for label, name in PAGES if _may(request, name))
    fixed = [*pages, *_actions(request, session)]
    numbered = _numbered(request, session, typed)
    if numbered is not None:
        yield numbered
    if typed:
        yield from (entry for entry in fixed if typed.casefold() in entry.label.casefold())
    for job in list_jobs(session, search=typed, kinds=_ALL_KINDS, size=_JOBS).jobs:
        if numbered is None or url("show_job", job_id=job.key) != numbered.address:
            yield _job_entry(request, job)
    if typed:
        yield from _datasets(request, session, typed)
        yield from _models(request, session, typed)
    else:
        yield from fixed


def _numbered(request: Request, session: Session, typed: str) -> Entry | None:
    """The job whose number was typed, with or without its #."""
    number = as_id(typed.removeprefix("#"))
    job = session.get(Job, number) if number is not None else None
    return _job_entry(request, job) if job is not None and job.kind != JobKind.PREVIEW else None


def _job_entry(request: Request, job: Job) -> Entry:
    words = status_words(job.status, job.summary, paused=job.paused)
    address = request.app.url_path_for("show_job", job_id=job.key)
    return Entry(f"#{job.id} {job.name}", f"{job.kind} · {words}", address)


def _datasets(request: Request, session: Session, typed: str) -> Iterator[Entry]:
    named = col(Dataset.name).icontains(typed, autoescape=True)
    for found in session.exec(select(Dataset).where(named).order_by(col(Dataset.id).desc()).limit(_OTHERS)):
        yield Entry(found.name, "dataset", request.app.url_path_for("show_dataset", dataset_id=found.key))


def _models(request: Request, session: Session, typed: str) -> Iterator[Entry]:
    named = col(BaseModel.name).icontains(typed, autoescape=True)
    for found in session.exec(select(BaseModel).where(named).order_by(col(BaseModel.id).desc()).limit(_OTHERS)):
        yield Entry(found.name, "base model", request.app.url_path_for("show_model", model_id=found.key))


def _actions(request: Request, session: Session) -> Iterator[Entry]:
    url = request.app.url_path_for
    queue = ("Resume the queue", "resume_all") if get_queue(session).paused else ("Pause the queue", "pause_all")
    for label, name in (queue, ("Run the demo job", "run_demo_job")):
        if _may(request, name):
            yield Entry(label, "action", url(name), post=True)
    yield Entry("Switch between light and dark", "action", script="theme")
    yield Entry("Keyboard shortcuts", "action", script="shortcuts")


def _may(request: Request, name: str) -> bool:
    """Whether who asks may open, or do, what the route of this name is for."""
    role, needed = identity_of(request).role, POLICY[name].role
    return needed is None or (role is not None and role.includes(needed))
