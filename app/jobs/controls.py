"""What the buttons of a job do: each leads back to the job's page, or to the queue's where it was pressed there."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from app.core.errors import InvalidInput
from app.core.jobs import controls
from app.core.jobs.extension import extend
from app.core.jobs.queue import get_job
from app.web.dependencies import FolderDep, WriteSessionDep
from app.web.templating import redirect

router = APIRouter(include_in_schema=False)


@router.post("/jobs/{job_id}/cancel")
def cancel_job(
    request: Request, job_id: int, session: WriteSessionDep, folder: FolderDep, save: Annotated[bool, Form()] = False
) -> Response:
    """Cancel in any state but an end; with `save` a running job saves what it learned first."""
    controls.cancel(session, folder, get_job(session, job_id), save=save)
    return _back(request, job_id)


@router.post("/jobs/{job_id}/pause")
def pause_job(request: Request, job_id: int, session: WriteSessionDep, folder: FolderDep) -> Response:
    """Hold a job that waits; have a training save its state and end."""
    controls.pause(session, folder, get_job(session, job_id))
    return _back(request, job_id)


@router.post("/jobs/{job_id}/resume")
def resume_job(request: Request, job_id: int, session: WriteSessionDep, folder: FolderDep) -> Response:
    """Let a paused job go on; queue a failed or cancelled training, to go on from its newest state."""
    controls.resume(session, folder, get_job(session, job_id))
    return _back(request, job_id)


@router.post("/jobs/{job_id}/save")
def save_job(request: Request, job_id: int, session: WriteSessionDep, folder: FolderDep) -> Response:
    """A checkpoint after the step in hand."""
    controls.save_now(session, folder, get_job(session, job_id))
    return _back(request, job_id)


@router.post("/jobs/{job_id}/sample")
def sample_job(request: Request, job_id: int, session: WriteSessionDep, folder: FolderDep) -> Response:
    """Answers to its sample prompts after the step in hand."""
    controls.sample_now(session, folder, get_job(session, job_id))
    return _back(request, job_id)


@router.post("/jobs/{job_id}/retry")
def retry_job(
    request: Request, job_id: int, session: WriteSessionDep, folder: FolderDep, from_step: Annotated[int, Form()] = 0
) -> Response:
    """Run a training again as the same job, from the start or from a kept state."""
    controls.retry(session, folder, get_job(session, job_id), from_step)
    return _back(request, job_id)


@router.post("/jobs/{job_id}/extend")
def extend_job(
    request: Request,
    job_id: int,
    session: WriteSessionDep,
    folder: FolderDep,
    amount: Annotated[float, Form()],
    unit: Annotated[str, Form()] = "epochs",
) -> Response:
    """Train a completed job longer."""
    job = get_job(session, job_id)
    if unit == "epochs":
        extend(session, folder, job, epochs=amount)
    elif amount.is_integer():
        extend(session, folder, job, steps=int(amount))
    else:
        raise InvalidInput("steps are whole ones", field="amount")
    return _back(request, job_id)


def _back(request: Request, job_id: int) -> Response:
    return redirect(request, request.app.url_path_for("show_job", job_id=job_id))
