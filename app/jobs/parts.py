"""A job's parts on pages of their own: its log, its configuration, and what it saved."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.core.events.log import latest_id
from app.core.jobs.spec import TrainingSpec
from app.core.jobs.status import ENDED, JobKind
from app.core.table import MAX_ID
from app.jobs.log_lines import LEVELS, SHOWN_LINES, Asked, read_lines
from app.jobs.view import view_job
from app.web.dependencies import FolderDep, JobDep, SessionDep
from app.web.templating import render, render_region

router = APIRouter(include_in_schema=False)


@router.get("/jobs/{job_id}/logs")
def show_job_logs(
    request: Request,
    job: JobDep,
    session: SessionDep,
    folder: FolderDep,
    q: str = "",
    level: str = "",
    before: Annotated[int | None, Query(ge=0, le=MAX_ID)] = None,
) -> Response:
    """The last lines of the log, or those that hold a text or have a level; a job that runs adds its new ones."""
    after = latest_id(session)  # before the file is read: a line that comes between is shown twice rather than never
    asked = Asked(q[:500], level if level in LEVELS else "", before)
    context = {
        "job": job,
        "asked": asked,
        "levels": LEVELS,
        "shown_lines": SHOWN_LINES,
        "log": read_lines(folder.job(job.key) / "train.log", asked),
        "after": after,
        "live": job.status not in ENDED,
    }
    return render_region(request, "jobs/_logs.html", "jobs/logs.html", context)


@router.get("/jobs/{job_id}/config")
def show_job_config(request: Request, job: JobDep) -> Response:
    """The spec, what differs from the defaults first, and the YAML that makes the same job."""
    fields = TrainingSpec.model_fields.items()
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields if not field.is_required()}
    of_training = job.kind == JobKind.TRAIN
    changed = {name: value for name, value in job.spec.items() if of_training and defaults.get(name, ...) != value}
    return render(request, "jobs/config.html", {"job": job, "changed": changed, "defaults": defaults})


@router.get("/jobs/{job_id}/artifacts")
def show_job_artifacts(request: Request, job: JobDep, session: SessionDep, folder: FolderDep) -> Response:
    """What the job saved: downloads, merges, exports, and how to load it."""
    return render(request, "jobs/artifacts.html", {"view": view_job(session, folder, job), "job": job})
