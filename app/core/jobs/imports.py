"""The job that makes a base model or a dataset ready."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sqlmodel import Session

from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.status import JobKind

IMPORT_PRIORITY = 10  # jobs may wait for it


def queue_import(
    session: Session,
    name: str,
    source: Mapping[str, Any],
    *,
    base_model_id: int | None = None,
    dataset_id: int | None = None,
) -> Job:
    """Queue the import of the stored model or dataset of that name from its source."""
    job = Job(
        name=f"import {name}"[:200],
        kind=JobKind.IMPORT,
        spec=dict(source),
        base_model_id=base_model_id,
        dataset_id=dataset_id,
        priority=IMPORT_PRIORITY,
        created_at=time.time(),
    )
    return enqueue(session, job)
