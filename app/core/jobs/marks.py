"""Moments of a job that its charts mark: checkpoints, starts after the first, and the end where memory ran out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlmodel import Session, col, select

from app.core.artifacts.models import Artifact
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import JobStatus


class MarkKind(StrEnum):
    """What happened."""

    CHECKPOINT = "checkpoint"
    RESUME = "resume"  # another attempt began
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment; `step` is None where only the time is known."""

    kind: MarkKind
    label: str
    step: int | None
    time: float


def list_marks(session: Session, job: Job) -> list[Mark]:
    """Oldest first."""
    marks = [*_checkpoints(session, job), *_attempts(session, job), *_end(job)]
    return sorted(marks, key=lambda mark: mark.time)


def _checkpoints(session: Session, job: Job) -> list[Mark]:
    saved = select(Artifact).where(Artifact.job_id == job.id, Artifact.kind == "checkpoint")
    return [
        Mark(MarkKind.CHECKPOINT, f"checkpoint of step {each.step}", each.step, each.created_at)
        for each in session.exec(saved.order_by(col(Artifact.step)))
        if each.step is not None
    ]


def _attempts(session: Session, job: Job) -> list[Mark]:
    again = select(Attempt).where(Attempt.job_id == job.id, col(Attempt.number) > 1)
    return [
        Mark(MarkKind.RESUME, f"attempt {each.number} begins", None, each.started_at) for each in session.exec(again)
    ]


def _end(job: Job) -> list[Mark]:
    if job.status != JobStatus.FAILED or job.finished_at is None:
        return []
    if (job.error or {}).get("kind") == MarkKind.OUT_OF_MEMORY:
        return [Mark(MarkKind.OUT_OF_MEMORY, "out of memory", job.step, job.finished_at)]
    return [Mark(MarkKind.FAILED, "failed", job.step, job.finished_at)]
