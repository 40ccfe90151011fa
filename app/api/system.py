"""Health, readings and the live stream."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from app import __version__
from app.core.jobs.models import Job
from app.core.jobs.queries import latest_reading, worker_view
from app.core.jobs.queue import get_job
from app.core.jobs.status import ENDED
from app.core.table import MAX_ID
from app.web.dependencies import SessionDep
from app.web.sse import stream_response

router = APIRouter(tags=["system"])


@router.get("/health", name="api_health")
def health(session: SessionDep) -> dict[str, Any]:
    """Whether web and worker are up."""
    return {"status": "ok", "version": __version__, "worker": worker_view(session)}


@router.get("/gpu", name="api_gpu")
def show_gpu(session: SessionDep) -> dict[str, Any]:
    """The newest reading of GPUs and host; what cannot be read is null."""
    reading = latest_reading(session)
    if reading is None:
        return {
            "available": False,
            "reason": "The worker does not run, so nothing is read.",
            "devices": [],
            "host": None,
        }
    return reading


def find_watched_job(session: SessionDep, job: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None) -> Job | None:
    return None if job is None else get_job(session, job)


@router.get("/events", name="api_events")
async def stream_events(
    request: Request,
    job: Annotated[Job | None, Depends(find_watched_job, scope="function")],
    after: Annotated[int | None, Query(ge=0, le=MAX_ID)] = None,
) -> StreamingResponse:
    """Server-sent events behind `after`; without it a job's from its first, else only new ones.

    The stream of a job that has ended ends with its last event.
    """
    if job is None:
        return stream_response(request, None, after)
    return stream_response(request, job.key, after or 0, follow=job.status not in ENDED)
