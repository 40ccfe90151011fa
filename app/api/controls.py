"""What is done to a job that waits, runs or has ended. 409 names the state, and in `possible` what that allows."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from app.api.schemas import CancelIn, ExtendIn, JobOut, MoveIn, RetryIn, StateOut
from app.core.jobs import controls
from app.core.jobs.extension import extend as extend_job
from app.core.jobs.queue import get_job
from app.core.jobs.states import list_states
from app.web.dependencies import FolderDep, JobDep, WriteSessionDep

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.post("/{job_id}/cancel", name="api_cancel_job")
def cancel(
    job_id: int,
    session: WriteSessionDep,
    folder: FolderDep,
    body: Annotated[CancelIn, Body()] = CancelIn(),  # noqa: B008
) -> JobOut:
    """Cancel in any state but an end; the job is `cancelled` once its process has been seen to end."""
    return JobOut.model_validate(controls.cancel(session, folder, get_job(session, job_id), save=body.save))


@router.post("/{job_id}/pause", name="api_pause_job")
def pause(job_id: int, session: WriteSessionDep, folder: FolderDep) -> JobOut:
    """Hold a job that waits; have a training save its state and end, so that the GPU is free."""
    return JobOut.model_validate(controls.pause(session, folder, get_job(session, job_id)))


@router.post("/{job_id}/resume", name="api_resume_job")
def resume(job_id: int, session: WriteSessionDep, folder: FolderDep) -> JobOut:
    """Let a paused job go on; queue a failed or cancelled training, to go on from its newest state."""
    return JobOut.model_validate(controls.resume(session, folder, get_job(session, job_id)))


@router.post("/{job_id}/save", name="api_save_job")
def save(job_id: int, session: WriteSessionDep, folder: FolderDep) -> JobOut:
    """A checkpoint after the step in hand; the training goes on."""
    return JobOut.model_validate(controls.save_now(session, folder, get_job(session, job_id)))


@router.post("/{job_id}/sample", name="api_sample_job")
def sample(job_id: int, session: WriteSessionDep, folder: FolderDep) -> JobOut:
    """Answers to its sample prompts after the step in hand; the training goes on."""
    return JobOut.model_validate(controls.sample_now(session, folder, get_job(session, job_id)))


@router.post("/{job_id}/retry", name="api_retry_job")
def retry(
    job_id: int,
    session: WriteSessionDep,
    folder: FolderDep,
    body: Annotated[RetryIn, Body()] = RetryIn(),  # noqa: B008
) -> JobOut:
    """Run a training again as the same job, from the start or from a kept state."""
    return JobOut.model_validate(controls.retry(session, folder, get_job(session, job_id), body.from_step))


@router.post("/{job_id}/extend", name="api_extend_job")
def extend(job_id: int, session: WriteSessionDep, folder: FolderDep, body: ExtendIn) -> JobOut:
    """Train a completed job longer, from the state of its end."""
    job = extend_job(session, folder, get_job(session, job_id), epochs=body.epochs, steps=body.steps)
    return JobOut.model_validate(job)


@router.post("/{job_id}/move", name="api_move_job")
def move(job_id: int, session: WriteSessionDep, folder: FolderDep, body: MoveIn) -> JobOut:
    """Give a waiting job another place in the queue."""
    return JobOut.model_validate(controls.move(session, folder, get_job(session, job_id), body.to))


@router.get("/{job_id}/states", name="api_job_states")
def states(job: JobDep, folder: FolderDep) -> list[StateOut]:
    """The training states that are kept: what `retry` can start from, by step."""
    return [StateOut.model_validate(state) for state in list_states(folder, job)]
