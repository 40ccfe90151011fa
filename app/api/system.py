"""Health, readings and the live stream."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from app import __version__
from app.core.jobs.queries import latest_reading, worker_view
from app.core.table import MAX_ID
from app.web.dependencies import SessionDep
from app.web.sse import stream_response

public = APIRouter(tags=["system"])
router = APIRouter(tags=["system"])


@public.get("/health", name="api_health")
def health(session: SessionDep) -> dict[str, Any]:
    """Whether web and worker are up."""
    return {"status": "ok", "version": __version__, "worker": worker_view(session, time.time())}


@router.get("/gpu", name="api_gpu")
def show_gpu(session: SessionDep) -> dict[str, Any]:
    """The newest reading of GPUs and host; what cannot be read is null."""
    reading = latest_reading(session, time.time())
    if reading is None:
        return {
            "available": False,
            "reason": "The worker does not run, so nothing is read.",
            "devices": [],
            "host": None,
        }
    return reading


@router.get("/events", name="api_events")
async def stream_events(
    request: Request,
    job: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
    after: Annotated[int | None, Query(ge=0, le=MAX_ID)] = None,
) -> StreamingResponse:
    """Server-sent events, from behind `after` on; without it a job's from its first, else only new ones."""
    start = 0 if after is None and job is not None else after
    return stream_response(request, job, start)
