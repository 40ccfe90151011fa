"""Sweeps: several trainings that differ in some fields, queued together or not at all."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from sqlmodel import Session

from app.api.jobs import spec_values
from app.api.schemas import JobOut, SweepIn
from app.core.jobs.sweep import expand, get_sweep, submit_sweep
from app.core.jobs.sweep_plan import plan_sweep
from app.core.paths import DataFolder
from app.web.dependencies import FolderDep, SessionDep, SettingsDep, WriteSessionDep

router = APIRouter(prefix="/sweeps", tags=["sweeps"])

_GIB = 1 << 30


@router.post("", status_code=201, name="api_submit_sweep")
def submit(body: SweepIn, session: WriteSessionDep, settings: SettingsDep, folder: FolderDep) -> dict[str, Any]:
    """Queue a job for each combination: {sweep_id, jobs}. 422 names every fault, and nothing is queued.

    A dry run gives {jobs: [{differences, verdict, peak_bytes, vram_bytes, steps, seconds, reason}], seconds, unknown}.
    """
    values = spec_values(body)
    if body.dry_run:
        return _plan(session, folder, values, body)
    jobs = submit_sweep(session, values, body.over, body.name, settings.local_roots, folder)
    return {"sweep_id": jobs[0].key, "jobs": [JobOut.model_validate(job) for job in jobs]}


@router.get("/{sweep_id}", name="api_show_sweep")
def show(sweep_id: int, session: SessionDep) -> dict[str, Any]:
    """{sweep_id, jobs}, in the order in which they were queued."""
    return {"sweep_id": sweep_id, "jobs": [JobOut.model_validate(job) for job in get_sweep(session, sweep_id)]}


def _plan(session: Session, folder: DataFolder, values: dict[str, Any], body: SweepIn) -> dict[str, Any]:
    card = round(body.vram_gb * _GIB) if body.vram_gb else None
    plan = plan_sweep(session, folder.home, expand(values, body.over), card)
    return {"jobs": [each.to_json() for each in plan.jobs], "seconds": plan.seconds, "unknown": plan.unknown}
