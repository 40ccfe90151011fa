"""The queue's page: what runs, what waits in which order, and whether anything starts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.errors import InvalidInput
from app.core.events.log import latest_id
from app.core.jobs import controls
from app.core.jobs.expected_start import expected_starts
from app.core.jobs.models import Job
from app.core.jobs.queries import active_jobs, count_queued, find_all_awaited, queued_jobs
from app.core.jobs.queue import get_job
from app.core.jobs.queue_state import get_queue, pause_queue, resume_queue, set_on_failure
from app.core.jobs.status import QUEUED_KINDS, OnFailure
from app.core.paths import DataFolder
from app.web.dependencies import FolderDep, SessionDep, WriteSessionDep
from app.web.templating import redirect, render, render_region, wants_partial

router = APIRouter(prefix="/queue", include_in_schema=False)

SHOWN_JOBS = 100


@router.get("")
def show_queue(request: Request, session: SessionDep, folder: FolderDep) -> Response:
    """What runs and what waits."""
    return render_region(request, "jobs/_queue.html", "jobs/queue.html", _describe(session, folder))


@router.post("/pause")
def pause_all(request: Request, session: WriteSessionDep, folder: FolderDep) -> Response:
    """No training and no answer on the GPU starts any more."""
    pause_queue(session)
    return _answer(request, session, folder, "The queue is paused.")


@router.post("/resume")
def resume_all(request: Request, session: WriteSessionDep, folder: FolderDep) -> Response:
    """Jobs start again."""
    resume_queue(session)
    return _answer(request, session, folder, "The queue goes on.")


@router.post("/on-failure")
def choose_on_failure(
    request: Request, session: WriteSessionDep, folder: FolderDep, on_failure: Annotated[OnFailure, Form()]
) -> Response:
    """What follows a failed training."""
    set_on_failure(session, on_failure)
    said = {OnFailure.CONTINUE: "the next job starts", OnFailure.PAUSE: "the queue pauses"}[on_failure]
    return _answer(request, session, folder, f"After a failed training {said}.")


@router.post("/{job_id}/move")
def move_job(
    request: Request, job_id: int, session: WriteSessionDep, folder: FolderDep, to: Annotated[int, Form(ge=1)]
) -> Response:
    """Give a waiting job another place."""
    job = controls.move(session, folder, get_job(session, job_id), to)
    return _answer(request, session, folder, f"Job {job.id} is at place {min(to, len(queued_jobs(session)))}.")


@router.post("/{job_id}/{action}")
def act_on_queued_job(
    request: Request, job_id: int, action: str, session: WriteSessionDep, folder: FolderDep
) -> Response:
    """Hold a job of the list, let it go on, or cancel it."""
    if action not in _ACTIONS:
        raise InvalidInput(f"{action!r} is not one of {', '.join(_ACTIONS)}.", field="action")
    job = _ACTIONS[action](session, folder, get_job(session, job_id))
    return _answer(request, session, folder, f"Job {job.id} is {controls.describe_state(job)}.")


_ACTIONS = {"pause": controls.pause, "resume": controls.resume, "cancel": controls.cancel}


def _answer(request: Request, session: Session, folder: DataFolder, told: str) -> Response:
    """The region with what was done, or the page."""
    if wants_partial(request):
        return render(request, "jobs/_queue.html", {**_describe(session, folder), "told": told})
    return redirect(request, request.app.url_path_for("show_queue"))


def _describe(session: Session, folder: DataFolder) -> dict[str, Any]:
    waiting = queued_jobs(session, SHOWN_JOBS)
    running = active_jobs(session)
    return {
        "after": latest_id(session),
        "queue_state": get_queue(session),
        "running": running,
        "waiting": waiting,
        "awaited": find_all_awaited(session, waiting),
        "possible": {job.id: _names(folder, job) for job in (*running, *waiting)},
        "starts": expected_starts(session),
        "total": count_queued(session, QUEUED_KINDS),
        "told": "",
    }


def _names(folder: DataFolder, job: Job) -> list[str]:
    return [action.value for action in controls.possible_actions(folder, job)]
