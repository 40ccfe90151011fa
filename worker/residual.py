"""What a finished job held of its GPU less what was planned, by component; its context is known from the readings."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session, select

from app.core.jobs.models import Job
from app.core.metrics.models import MemoryReading
from app.core.planning.calibration import Residual


def add_residual(session: Session, job: Job, memory: dict[str, Any]) -> dict[str, Any]:
    """The summary's `memory` with `overhead` among what was measured, where the readings show it, and `residual`.

    Overhead is what the driver counted for the process at its most, less what was allocated at the most.
    """
    largest = _largest_process(session, job.key)
    measured = dict(memory["measured"])
    if largest is not None and largest > memory["allocated_bytes"]:
        measured["overhead"] = largest - memory["allocated_bytes"]
    return {**memory, **Residual(memory["planned"], measured).to_json()}


def _largest_process(session: Session, job_id: int) -> int | None:
    """Bytes of the job's process on its device, in the largest reading; None where the driver does not tell."""
    readings = session.exec(select(MemoryReading.data).where(MemoryReading.job_id == job_id))
    sizes = [device.get("process_vram_bytes") for data in readings for device in data.get("devices", [])]
    return max((size for size in sizes if size), default=None)
