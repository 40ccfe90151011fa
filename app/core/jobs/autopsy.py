"""Why a job ran out of memory, and what would take less: what was noted at its end, read together with the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.jobs.changes import Change, Rows, Setting
from app.core.jobs.models import Job
from app.core.jobs.planner import Planner
from app.core.jobs.queries import find_capabilities
from app.core.jobs.ranking import rank_changes
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import JobKind
from app.core.jobs.submit import submit_values
from app.core.metrics.models import MemoryReading
from app.core.models.models import BaseModel
from app.core.paths import DataFolder
from app.core.planning.overhead import CONTEXT_BYTES

SHOWN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Autopsy:
    """`facts` is {memory, reason, phase, step, time, batch, allocator, device, host}, as `worker.post_mortem` noted
    them; what is not known is None. `predicted_bytes` is the peak of what failed, `capacity_bytes` what it could have.
    """

    facts: Mapping[str, Any]
    changes: list[Change]
    readings: list[dict[str, Any]]  # of the last minute, oldest first
    predicted_bytes: int | None = None
    capacity_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Facts, changes and readings as plain values."""
        figures = {"predicted_bytes": self.predicted_bytes, "capacity_bytes": self.capacity_bytes}
        changes = [asdict(change) for change in self.changes]
        return {**self.facts, **figures, "changes": changes, "readings": self.readings}


def get_autopsy(session: Session, job: Job) -> Autopsy:
    """Raises: NotFound for a job that did not run out of memory."""
    autopsy = find_autopsy(session, job)
    if autopsy is None:
        raise NotFound(f"Job {job.id} ({job.status}) did not run out of memory.")
    return autopsy


def find_autopsy(session: Session, job: Job) -> Autopsy | None:
    """None for a job that did not run out of memory."""
    facts = (job.error or {}).get("autopsy")
    if facts is None:
        return None
    readings = _last_readings(session, job.key, facts["time"])
    capabilities = find_capabilities(session)
    on_cuda = bool((capabilities or {}).get("cuda"))
    if job.kind != JobKind.TRAIN or (facts["memory"] == "host" and on_cuda):
        return Autopsy(facts, [], readings)  # what is trained, and how, does not decide there
    try:
        spec = parse_spec(job.spec)
    except InvalidInput:  # queued by a version that took it
        return Autopsy(facts, [], readings)
    capacity = _capacity(facts)
    setting = Setting(on_cuda, capabilities, _rows(facts["batch"]), capacity)
    peak = Planner(session, session.get(BaseModel, job.base_model_id), spec, setting)
    return Autopsy(facts, rank_changes(spec, setting, peak), readings, peak(spec), capacity)


def apply_change(
    session: Session, job: Job, key: str, local_roots: Sequence[Path] = (), folder: DataFolder | None = None
) -> Job:
    """Queue the job's spec with one of its changes. Raises: NotFound, Conflict, InvalidInput with every fault."""
    change = next((each for each in get_autopsy(session, job).changes if each.key == key), None)
    if change is None:
        raise Conflict(f"{key!r:.60} is none of the changes of job {job.id}.", advice="Load its page again.")
    return submit_values(session, {**job.spec, **change.values}, f"{job.name} ({change.title})", local_roots, folder)


def _last_readings(session: Session, job_id: int, end: float) -> list[dict[str, Any]]:
    """Those of the last minute that was read: the end of a job may have been seen long after it."""
    until = (MemoryReading.job_id == job_id, col(MemoryReading.time) <= end + 1)
    last = session.exec(select(func.max(MemoryReading.time)).where(*until)).one() or end
    readings = select(MemoryReading).where(*until, col(MemoryReading.time) >= last - SHOWN_SECONDS)
    return [{"time": each.time, **each.data} for each in session.exec(readings.order_by(col(MemoryReading.time))).all()]


def _capacity(facts: Mapping[str, Any]) -> int | None:
    """What the job could have had of its device: what it held, CUDA's context too, and what was free."""
    allocator = facts["allocator"] or {}
    if allocator.get("source") == "limit":
        return int(allocator["total_bytes"])
    if allocator.get("source") != "cuda":
        return None
    as_seen = (facts["device"] or {}).get("process_vram_bytes") or 0  # up to a second before
    held = max(as_seen, allocator["reserved_bytes"] + CONTEXT_BYTES)
    return int(min(held + allocator["free_bytes"], allocator["total_bytes"]))


def _rows(batch: Mapping[str, Any] | None) -> Rows:
    if batch is None or "rows_in_all" not in batch:
        return Rows()
    longer = tuple((limit, count) for limit, count in batch["longer_than"])
    return Rows(batch["rows_in_all"], batch["longest_row"], longer)
