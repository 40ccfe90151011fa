"""The JSON API under /api/v1: the same functions as behind the pages."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from app.api import artifacts, datasets, jobs, models, previews, system
from app.api.auth import require_token

router = APIRouter(prefix="/api/v1")
router.include_router(system.public)
for part in (system.router, jobs.router, datasets.router, previews.router, models.router, artifacts.router):
    router.include_router(part, dependencies=[Depends(require_token)])
