"""The list of jobs: filtered, sorted and paged by the database, whatever its length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, func, text
from sqlmodel import Session, col, select

from app.core.jobs.models import Job
from app.core.jobs.queries import LISTED_KINDS
from app.core.jobs.status import JobKind, JobStatus

_TAGGED = "EXISTS (SELECT 1 FROM json_each(job.tags) AS tag WHERE tag.value = :tag)"


class JobSort(StrEnum):
    """In which order. Jobs without that loss come last."""

    NEWEST = "newest"
    OLDEST = "oldest"
    LOSS = "loss"  # the lowest first
    LOSS_DESC = "-loss"
    EVAL_LOSS = "eval_loss"
    EVAL_LOSS_DESC = "-eval_loss"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of jobs, and how many there are in all."""

    jobs: Sequence[Job]
    total: int
    number: int
    size: int

    @property
    def last(self) -> int:
        """The last page's number, from 1."""
        return max(1, -(-self.total // self.size))


def list_jobs(
    session: Session,
    *,
    status: JobStatus | None = None,
    search: str = "",
    tag: str = "",
    kinds: Sequence[JobKind] = LISTED_KINDS,
    sort: JobSort = JobSort.NEWEST,
    page: int = 1,
    size: int = 50,
) -> Page:
    """Jobs by status, kind, tag and part of the name."""
    where: list[ColumnElement[bool]] = [col(Job.kind).in_(kinds)]
    if status is not None:
        where.append(col(Job.status) == status)
    if search:
        where.append(col(Job.name).icontains(search, autoescape=True))
    if tag:
        where.append(text(_TAGGED).bindparams(tag=tag))  # type: ignore[arg-type]
    total = session.exec(select(func.count()).select_from(Job).where(*where)).one()
    order = _order(sort)
    ids = select(Job.id).where(*where).order_by(*order).offset((page - 1) * size).limit(size)
    shown = select(Job).where(col(Job.id).in_(ids)).order_by(*order)  # so that rows of other pages are not read whole
    return Page(session.exec(shown).all(), total, page, size)


def _order(sort: JobSort) -> Sequence[Any]:
    newest = col(Job.id).desc()
    if sort in (JobSort.NEWEST, JobSort.OLDEST):
        return [newest if sort == JobSort.NEWEST else col(Job.id)]
    # As text, word for word as the index has it, else SQLite would not use that.
    path = "$.train_loss" if sort in (JobSort.LOSS, JobSort.LOSS_DESC) else "$.eval_loss"
    direction = "DESC" if sort in (JobSort.LOSS_DESC, JobSort.EVAL_LOSS_DESC) else "ASC"
    return [text(f"json_extract(summary, '{path}') {direction} NULLS LAST"), newest]
