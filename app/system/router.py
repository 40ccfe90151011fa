"""The dashboard, and the live stream of the pages."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import func
from sqlmodel import Session, col, select

from app.core.datasets.store import find_dataset
from app.core.demo import DEMO_DATASET_NAME, DEMO_MODEL_NAME
from app.core.disk import read_disk
from app.core.events.log import latest_id
from app.core.jobs.expected_start import expected_starts
from app.core.jobs.models import Job
from app.core.jobs.queries import (
    LISTED_KINDS,
    active_jobs,
    count_queued,
    find_all_awaited,
    queued_jobs,
)
from app.core.jobs.queue_state import get_queue
from app.core.jobs.status import ENDED, QUEUED_KINDS, JobKind
from app.core.metrics.store import latest_values
from app.core.models.models import BaseModel, ModelStatus
from app.core.models.registry import find_model
from app.core.paths import DataFolder
from app.core.table import MAX_ID
from app.system import gpu, palette
from app.system.box import describe_box
from app.system.gpu import read_machine
from app.web.dependencies import FolderDep, SessionDep
from app.web.sparkline import loss_lines
from app.web.sse import stream_response
from app.web.templating import render, render_region

router = APIRouter(include_in_schema=False)

router.include_router(gpu.router)
router.include_router(palette.router)

RECENT_JOBS = 6
QUEUED_JOBS = 8


@router.get("/")
def show_dashboard(request: Request, session: SessionDep, folder: FolderDep) -> Response:
    """What runs, waits and came out, and what the box has left."""
    return render_region(request, "system/_dashboard.html", "system/dashboard.html", _dashboard(session, folder))


@router.get("/frame")
def show_frame(request: Request) -> Response:
    """The region of every page that tells whether the worker runs, and how far the running job is."""
    return render(request, "_frame.html", {})


@router.get("/events")
async def stream_events(
    request: Request,
    job: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
    after: Annotated[int | None, Query(ge=0, le=MAX_ID)] = None,
) -> StreamingResponse:
    """The live stream: of one job or of all, from behind `after` on."""
    return stream_response(request, job, after)


def _dashboard(session: Session, folder: DataFolder) -> dict[str, Any]:
    active = active_jobs(session)
    running = next(iter(active), None)
    queue, recent = queued_jobs(session, QUEUED_JOBS), _recent(session)
    readings, disk = read_machine(session), read_disk(session, folder.home)
    return {
        "after": latest_id(session),
        "running": running,
        "beside": active[1:],
        "metrics": latest_values(session, running.key) if running else {},
        "queue": queue,
        "waiting": count_queued(session, QUEUED_KINDS),
        "starts": expected_starts(session),
        "disk": disk,
        "queue_state": get_queue(session),
        "awaited": find_all_awaited(session, queue),
        "importing": _importing(session),
        "recent": recent,
        "lines": loss_lines(session, recent),
        "trained": session.exec(select(Job.id).where(Job.kind == JobKind.TRAIN).limit(1)).first() is not None,
        "can_run_demo": _can_run_demo(session),
        "box": describe_box(readings["reading"], disk, readings["capabilities"]),
        **readings,
    }


def _recent(session: Session) -> list[Job]:
    # "Likely", so that SQLite walks the jobs by time; else it sorts all 10,000 to take the newest six.
    ended = select(Job).where(func.likely(col(Job.status).in_(ENDED)), func.likely(col(Job.kind).in_(LISTED_KINDS)))
    return list(session.exec(ended.order_by(col(Job.finished_at).desc()).limit(RECENT_JOBS)))


def _importing(session: Session) -> bool:
    """Whether a base model is being made ready, as the demo's is at the first start."""
    models = select(BaseModel.id).where(BaseModel.status == ModelStatus.IMPORTING).limit(1)
    return session.exec(models).first() is not None


def _can_run_demo(session: Session) -> bool:
    model = find_model(session, DEMO_MODEL_NAME)
    usable = model is not None and model.status != ModelStatus.FAILED
    return usable and find_dataset(session, DEMO_DATASET_NAME) is not None
