"""Which runs a comparison is about, and what was asked for but cannot be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from app.core.jobs.models import Job
from app.core.jobs.status import JobKind, JobStatus
from app.core.table import as_id

MOST = 20
_OFFERED = 30


@dataclass(frozen=True, slots=True)
class Choice:
    """`runs` in the order asked for; `problems` says of each other one why it is left out."""

    runs: Sequence[Job]
    problems: Sequence[str]


def choose(session: Session, asked: Iterable[str]) -> Choice:
    """Ids as repeated values, as comma-separated ones, or both."""
    references = list(dict.fromkeys(each.strip() for part in asked for each in part.split(",") if each.strip()))
    runs: list[Job] = []
    problems: list[str] = []
    for reference in references[:MOST]:
        job = _find(session, reference)
        if job is None:
            problems.append(f"There is no job {reference[:40]}.")
        elif job.kind != JobKind.TRAIN:
            problems.append(f"Job {job.id} is no training ({job.kind}).")
        elif job not in runs:
            runs.append(job)
    if len(references) > MOST:
        problems.append(f"{len(references) - MOST} more are left out: at most {MOST} are compared at once.")
    return Choice(runs, problems)


def offer_runs(session: Session) -> Sequence[Job]:
    """The newest trainings that have begun."""
    begun = select(Job).where(Job.kind == JobKind.TRAIN, Job.status != JobStatus.QUEUED)
    return session.exec(begun.order_by(col(Job.id).desc()).limit(_OFFERED)).all()


def _find(session: Session, reference: str) -> Job | None:
    number = as_id(reference)
    return None if number is None else session.get(Job, number)
