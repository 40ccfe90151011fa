"""How often a job may be lost to the same cause before it fails for good, so that a poisonous one cannot loop."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlmodel import Session, col, select

from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import JobKind


class Cause(StrEnum):
    """What ended an attempt through no fault of the job's own, as far as can be told. Kept in the attempt's outcome."""

    PROCESS_LOST = "process_lost"  # it ended without a word, or the worker did
    HOST_OUT_OF_MEMORY = "host_out_of_memory"
    DISK_FULL = "disk_full"


@dataclass(frozen=True, slots=True)
class Limit:
    """An attempt lost to the cause for the `times`-th time is the last one."""

    times: int
    said: str  # what happened, to be followed by how often


LIMITS = {
    Cause.PROCESS_LOST: Limit(3, "Its process was lost"),
    Cause.HOST_OUT_OF_MEMORY: Limit(2, "The host ran out of memory under it"),
    Cause.DISK_FULL: Limit(3, "The disk was too full to save what it goes on from"),
}


def cause_of(job: Job, error: dict[str, Any]) -> Cause | None:
    """The cause that an error tells of, where trying again may help: training goes on from what it has saved."""
    kinds = {Cause.HOST_OUT_OF_MEMORY.value, Cause.DISK_FULL.value}
    return Cause(error["kind"]) if job.kind == JobKind.TRAIN and error["kind"] in kinds else None


def note_loss(session: Session, job: Job, cause: Cause) -> int:
    """Put down what the job's last attempt was lost to. Returns how often that has happened.

    An attempt that has an outcome was no lost process: a worker that stops as planned leaves one.
    """
    attempt = session.get(Attempt, (job.key, job.attempts))
    if attempt is not None and (attempt.outcome is None or cause is not Cause.PROCESS_LOST):
        attempt.outcome = {**(attempt.outcome or {"outcome": "interrupted"}), "cause": cause.value}
        session.add(attempt)
        session.flush()
    return count_losses(session, job).get(cause, 0)


def count_losses(session: Session, job: Job) -> dict[Cause, int]:
    """How often the job was lost to each cause since somebody last started it."""
    later = col(Attempt.number) > job.forgiven_attempts
    counts: dict[Cause, int] = {}
    for outcome in session.exec(select(Attempt.outcome).where(Attempt.job_id == job.id, later)):
        cause = (outcome or {}).get("cause")
        if cause is not None:
            counts[Cause(cause)] = counts.get(Cause(cause), 0) + 1
    return counts


def lost_error(job: Job, cause: Cause, times: int, error: dict[str, Any] | None) -> dict[str, Any]:
    """The error of a job that was lost to the cause for the `times`-th time; what the last attempt told stays in it."""
    limit = LIMITS[cause]
    again = "ask for it again"
    if job.kind == JobKind.TRAIN:
        again = f"go on by `loradeck jobs resume {job.id}`, start again by `loradeck jobs retry {job.id}`"
    error = error or {"kind": "interrupted", "advice": f"Look at the log's last lines, then {again}."}
    last = f" The last time: {error['message']}" if "message" in error else ""
    if times < limit.times:
        said = (
            f"{limit.said}; it goes on from what it has saved. This was time {times}, and time {limit.times} ends it."
        )
    else:
        said = f"{limit.said} {times} times."
    return {**error, "message": f"{said}{last}"}
