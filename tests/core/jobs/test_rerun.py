"""A finished training is queued again from its receipt, or refused with what is no longer the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.errors import Conflict, InvalidInput
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.receipts import find_receipt, receipt_path
from app.core.jobs.rerun import rerun_training
from app.core.jobs.status import JobKind, JobStatus
from app.core.models.models import BaseModel
from app.core.paths import DataFolder
from tests.receipts import write_receipt

MakeJob = Callable[..., Job]


@pytest.fixture
def done(database: Database, folder: DataFolder, registered: tuple[BaseModel, Dataset], make_job: MakeJob) -> Job:
    """A completed training with its receipt."""
    job = make_job("mine", r=4, seed=7)
    with database.write() as session:
        for status in (JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED):
            job = queue.advance(session, job, status)
    write_receipt(folder, job, *registered)
    return job


def _rerun(database: Database, folder: DataFolder, job: Job, name: str | None = None) -> Job:
    with database.write() as session:
        return rerun_training(session, folder, queue.get_job(session, job.key), name)


def _refused(database: Database, folder: DataFolder, job: Job) -> Conflict:
    with pytest.raises(Conflict) as caught:
        _rerun(database, folder, job)
    with database.read() as session:
        assert queue.get_job(session, job.key)
        with pytest.raises(Exception, match="There is no job"):
            queue.get_job(session, job.key + 1)
    return caught.value


def test_the_receipt_decides_and_not_the_job(database: Database, folder: DataFolder, done: Job) -> None:
    with database.write() as session:
        stored = queue.get_job(session, done.key)
        stored.spec = {**stored.spec, "r": 99}
        session.add(stored)
    again = _rerun(database, folder, done)
    assert (again.spec["r"], again.spec["seed"], again.source_job_id) == (4, 7, done.id)
    assert (again.name, again.status, again.kind) == ("mine", JobStatus.QUEUED, JobKind.TRAIN)
    assert _rerun(database, folder, done, "second").name == "second"


def test_what_the_spec_named_by_id_is_found_by_the_receipts_name(
    database: Database, folder: DataFolder, done: Job, registered: tuple[BaseModel, Dataset]
) -> None:
    spec = {**done.spec, "base_model": "1", "dataset": "/data/small.jsonl"}
    write_receipt(folder, done, *registered, spec=spec)
    again = _rerun(database, folder, done)
    assert (again.spec["base_model"], again.spec["dataset"]) == ("tiny", "small")


def test_a_run_that_was_made_longer_is_not_repeated(
    database: Database, folder: DataFolder, done: Job, registered: tuple[BaseModel, Dataset]
) -> None:
    write_receipt(folder, done, *registered, result={"extended_at": [12]})
    assert f"Job {done.id} was made longer at step 12" in _refused(database, folder, done).message


def test_every_difference_is_named_with_what_to_do(database: Database, folder: DataFolder, done: Job) -> None:
    with database.write() as session:
        session.get_one(Dataset, done.dataset_id).rows_sha256 = "cd" * 32
        session.get_one(BaseModel, done.base_model_id).architecture = "GPT2LMHeadModel"
    refusal = _refused(database, folder, done)
    assert "dataset small holds other rows (sha256 " in refusal.message
    assert f"{'cd' * 6} now)" in refusal.message
    assert "base model tiny is of another architecture (None then, GPT2LMHeadModel now)" in refusal.message
    assert f"loradeck jobs clone {done.id}" in (refusal.advice or "")


def test_data_and_model_that_are_gone_are_named(database: Database, folder: DataFolder, done: Job) -> None:
    with database.write() as session:
        session.get_one(Dataset, done.dataset_id).name = "renamed"
        session.get_one(BaseModel, done.base_model_id).name = "renamed"
    message = _refused(database, folder, done).message
    assert "dataset small is not registered any more" in message
    assert "base model tiny is not registered any more" in message


def test_a_job_without_a_receipt_is_refused(database: Database, folder: DataFolder, make_job: MakeJob) -> None:
    job = make_job()
    refusal = _refused(database, folder, job)
    assert f"Job {job.id} (queued) left no receipt" in refusal.message
    assert f"loradeck jobs clone {job.id}" in (refusal.advice or "")
    assert find_receipt(folder, job) is None


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is damaged"), ('{"format": 2}', "is of format 2; this version reads 1")]
)
def test_a_receipt_that_cannot_be_read_is_refused(
    database: Database, folder: DataFolder, done: Job, text: str, message: str
) -> None:
    receipt_path(folder, done).write_text(text, encoding="utf-8")
    assert message in _refused(database, folder, done).message
    assert find_receipt(folder, done) is None


def test_a_spec_that_is_no_longer_taken_is_refused_at_its_field(
    database: Database, folder: DataFolder, done: Job, registered: tuple[BaseModel, Dataset]
) -> None:
    write_receipt(folder, done, *registered, spec={**done.spec, "gone": 1})
    with pytest.raises(InvalidInput) as caught:
        _rerun(database, folder, done)
    assert [fault.field for fault in caught.value.faults] == ["gone"]


def test_only_training_can_be_run_again(database: Database, folder: DataFolder, done: Job) -> None:
    merge = Job(name="m", kind=JobKind.MERGE, created_at=0.0)
    with database.write() as session:
        queue.enqueue(session, merge)
    with pytest.raises(Conflict, match=r"is not a training job \(merge\)"):
        _rerun(database, folder, merge)


def test_a_run_that_was_stopped_is_not_run_again_to_its_end(
    database: Database, folder: DataFolder, registered: tuple[BaseModel, Dataset], done: Job
) -> None:
    write_receipt(folder, done, *registered, result={"stopped_by_user": True, "steps": 4})
    refusal = _refused(database, folder, done)
    assert refusal.message.startswith(f"Job {done.id} was stopped at step 4, before its end")
    assert f"loradeck jobs clone {done.id}" in str(refusal.advice)
