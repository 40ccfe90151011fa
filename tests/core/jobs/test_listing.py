"""The list's order and filters, and what people write beside a job."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlmodel import Session

from app.core.errors import InvalidInput
from app.core.jobs.listing import JobSort, list_jobs
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind, JobStatus
from app.core.jobs.tagging import MAX_TAG_LENGTH, describe, list_tags, split_tags


def _add(session: Session, name: str, loss: float | None = None, **fields: object) -> Job:
    summary = {} if loss is None else {"train_loss": loss, "eval_loss": 10 - loss}
    job = Job(name=name, kind=JobKind.TRAIN, created_at=0, summary=summary, **fields)
    session.add(job)
    session.flush()
    return job


def _names(session: Session, **asked: object) -> list[str]:
    return [job.name for job in list_jobs(session, **asked).jobs]  # type: ignore[arg-type]


def test_sorts_by_either_loss_and_jobs_without_one_come_last(session: Session) -> None:
    for name, loss in (("b", 2.0), ("none", None), ("c", 3.0), ("a", 1.0)):
        _add(session, name, loss)
    assert _names(session) == ["a", "c", "none", "b"]
    assert _names(session, sort=JobSort.OLDEST) == ["b", "none", "c", "a"]
    assert _names(session, sort=JobSort.LOSS) == ["a", "b", "c", "none"]
    assert _names(session, sort=JobSort.LOSS_DESC) == ["c", "b", "a", "none"]
    assert _names(session, sort=JobSort.EVAL_LOSS) == ["c", "b", "a", "none"]


def test_sorting_by_loss_reads_an_index_rather_than_every_job(session: Session) -> None:
    _add(session, "a", 1.0)
    query = "SELECT id FROM job ORDER BY json_extract(summary, '$.eval_loss') ASC NULLS LAST LIMIT 50"
    plan = " ".join(str(row) for row in session.execute(text(f"EXPLAIN QUERY PLAN {query}")))
    assert "ix_job_eval_loss" in plan
    assert "TEMP B-TREE" not in plan


def test_tags_are_kept_once_each_found_by_and_listed(session: Session) -> None:
    first, second = _add(session, "first"), _add(session, "second", status=JobStatus.FAILED)
    describe(session, first, tags=split_tags("night, baseline,\n night , 🚀"), notes="  looks\r\ngood ")
    describe(session, second, tags=["night", '"quoted"'])
    assert (first.tags, first.notes) == (["night", "baseline", "🚀"], "looks\ngood")
    assert _names(session, tag="night") == ["second", "first"]
    assert _names(session, tag="night", status=JobStatus.FAILED) == ["second"]
    assert _names(session, tag="nigh") == []
    assert _names(session, tag='"quoted"') == ["second"]
    assert list_tags(session) == ['"quoted"', "baseline", "night", "🚀"]


def test_every_fault_of_tags_and_notes_is_named_and_nothing_is_kept(session: Session) -> None:
    job = _add(session, "job")
    describe(session, job, tags=["kept"], notes="kept")
    with pytest.raises(InvalidInput) as raised:
        describe(session, job, tags=["x" * (MAX_TAG_LENGTH + 1), "a\x07b", *map(str, range(20))], notes="y" * 10_001)
    assert [fault.field for fault in raised.value.faults] == ["tags", "tags", "tags", "notes"]
    assert (job.tags, job.notes) == (["kept"], "kept")
