"""The JSON API under /api/v1: the same functions as behind the pages."""

from __future__ import annotations

from fastapi import APIRouter

from app.api import (
    adapters,
    artifacts,
    checks,
    controls,
    datasets,
    jobs,
    models,
    plan,
    previews,
    queue,
    samples,
    secrets,
    sweeps,
    system,
)

router = APIRouter(prefix="/api/v1")
_PARTS = (
    *(system, jobs, sweeps, controls, queue, checks, datasets, previews, models, artifacts, adapters, plan),
    *(secrets, samples),
)
for part in _PARTS:
    router.include_router(part.router)
