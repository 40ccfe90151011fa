"""The queue for the GPU: whether it goes on."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.schemas import QueueIn, QueueOut
from app.core.jobs import queue_state
from app.web.dependencies import SessionDep, WriteSessionDep

router = APIRouter(prefix="/queue", tags=["queue"])


@router.get("", name="api_show_queue")
def show(session: SessionDep) -> QueueOut:
    """Whether trainings, and answers on the GPU, start, and what follows a failure."""
    return QueueOut.model_validate(queue_state.get_queue(session))


@router.patch("", name="api_set_queue")
def change(session: WriteSessionDep, body: QueueIn) -> QueueOut:
    """Set what follows a failed training."""
    return QueueOut.model_validate(queue_state.set_on_failure(session, body.on_failure))


@router.post("/pause", name="api_pause_queue")
def pause(session: WriteSessionDep) -> QueueOut:
    """No training and no answer on the GPU starts any more; what runs goes on."""
    return QueueOut.model_validate(queue_state.pause_queue(session))


@router.post("/resume", name="api_resume_queue")
def resume(session: WriteSessionDep) -> QueueOut:
    """Jobs start again."""
    return QueueOut.model_validate(queue_state.resume_queue(session))
