"""Sweeps: what stands in the form's sweep field, job by job, before it is queued; and a queued sweep's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.errors import Conflict, Fault, InvalidInput
from app.core.jobs.models import Job
from app.core.jobs.queue import request_cancel
from app.core.jobs.status import JobStatus
from app.core.jobs.sweep import Variant, differing_fields, get_sweep
from app.core.jobs.sweep_plan import SweepPlan, plan_sweep
from app.jobs.fit import read_card
from app.jobs.forms import CARD, SWEEP, expand_form
from app.web.dependencies import FolderDep, SessionDep, WriteSessionDep
from app.web.forms import Typed
from app.web.templating import redirect, render

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Preview:
    """What the sweep field comes to; nothing while it is empty."""

    variants: Sequence[Variant] = ()
    plan: SweepPlan | None = None
    faults: Sequence[Fault] = ()


@router.post("/jobs/new/sweep")
def show_sweep_preview(request: Request, typed: Typed, session: SessionDep, folder: FolderDep) -> Response:
    """The region below the sweep field, as the form stands now."""
    return render(request, "jobs/_sweep.html", {"sweep": describe_sweep(session, folder.home, typed)})


def describe_sweep(session: Session, home: Path, typed: Mapping[str, str]) -> Preview:
    """`typed` are the form's values by name."""
    if not typed.get(SWEEP, "").strip():
        return Preview()
    try:
        variants = expand_form(typed)
        return Preview(variants, plan_sweep(session, home, variants, read_card(typed.get(CARD, ""))))
    except (InvalidInput, Conflict) as error:
        faults = error.faults if isinstance(error, InvalidInput) else [Fault("", error.message, error.advice)]
        return Preview(faults=faults)


@router.get("/sweeps/{sweep_id}")
def show_sweep(request: Request, sweep_id: int, session: SessionDep) -> Response:
    """A sweep's jobs by their differences, the best eval loss first among those that have one."""
    jobs = get_sweep(session, sweep_id)
    context = {"jobs": sorted(jobs, key=_rank), "fields": differing_fields(jobs), "sweep_id": sweep_id}
    return render(request, "jobs/sweep.html", {**context, "waiting": sum(_waits(job) for job in jobs)})


@router.post("/sweeps/{sweep_id}/cancel")
def cancel_sweep(request: Request, sweep_id: int, session: WriteSessionDep) -> Response:
    """Cancel the jobs of a sweep that have not started; what runs or has ended stays as it is."""
    for job in get_sweep(session, sweep_id):
        if _waits(job):
            request_cancel(session, job)
    return redirect(request, request.app.url_path_for("show_sweep", sweep_id=sweep_id))


def _waits(job: Job) -> bool:
    return job.status == JobStatus.QUEUED


def _rank(job: Job) -> tuple[bool, float, int]:
    loss: Any = job.summary.get("eval_loss")
    return loss is None, loss or 0.0, job.key
