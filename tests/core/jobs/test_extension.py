"""A completed training is made longer."""

from __future__ import annotations

import pytest
from sqlmodel import Session

from app.core.errors import Conflict, InvalidInput
from app.core.jobs import queue
from app.core.jobs.extension import extend
from app.core.jobs.models import Job
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import JobKind, JobStatus
from app.core.metrics.store import put_metrics, read_series
from app.core.paths import DataFolder
from tests.saved_states import save_states


def _ended(session: Session, folder: DataFolder, status: JobStatus = JobStatus.COMPLETED, *steps: int) -> Job:
    """One of 12 steps, 6 an epoch."""
    spec = parse_spec({"base_model": "tiny", "dataset": "small", "num_train_epochs": 2}).model_dump(mode="json")
    job = queue.enqueue(session, Job(name="x", kind=JobKind.TRAIN, spec=spec, created_at=0))
    for to in (JobStatus.STARTING, JobStatus.RUNNING, status):
        job = queue.advance(session, job, to, step=12, max_steps=12)
    for step in (11, 12):
        put_metrics(session, job.key, step, 0.0, {"loss": 1.0, "epoch": step / 6})
    save_states(folder, job, *steps)
    return job


@pytest.mark.parametrize(("more", "total"), [({"steps": 5}, 17), ({"epochs": 1.0}, 18), ({"epochs": 0.5}, 15)])
def test_it_waits_to_go_on_from_its_end(
    session: Session, folder: DataFolder, more: dict[str, float], total: int
) -> None:
    job = extend(session, folder, _ended(session, folder, JobStatus.COMPLETED, 12), **more)  # type: ignore[arg-type]
    assert (job.status, job.start_from, job.max_steps, job.spec["max_steps"]) == (JobStatus.QUEUED, 12, total, total)
    assert job.summary == {"extended_at": [12]}
    assert [step for step, _ in read_series(session, job.key)["loss"]] == [11, 12]


def test_each_extension_is_remembered(session: Session, folder: DataFolder) -> None:
    job = extend(session, folder, _ended(session, folder, JobStatus.COMPLETED, 12), steps=1)
    job = queue.advance(session, queue.advance(session, job, JobStatus.STARTING), JobStatus.COMPLETED)
    save_states(folder, job, 13)
    assert extend(session, folder, job, steps=1).summary == {"extended_at": [12, 13]}


@pytest.mark.parametrize(
    ("more", "field", "said"),
    [
        ({}, "epochs", "one of the two"),
        ({"epochs": 1.0, "steps": 1}, "epochs", "one of the two"),
        ({"steps": 0}, "steps", "at least 1"),
        ({"epochs": 0.01}, "epochs", "a step at least"),
        ({"steps": 10**9}, "max_steps", "less than or equal"),
    ],
)
def test_how_much_longer_must_be_a_length(
    session: Session, folder: DataFolder, more: dict[str, float], field: str, said: str
) -> None:
    job = _ended(session, folder, JobStatus.COMPLETED, 12)
    with pytest.raises(InvalidInput, match=said) as refused:
        extend(session, folder, job, **more)  # type: ignore[arg-type]
    assert refused.value.faults[0].field == field
    assert queue.get_job(session, job.key).status == JobStatus.COMPLETED


def test_without_the_state_of_its_end_it_is_refused_and_said_what_is_lost(session: Session, folder: DataFolder) -> None:
    with pytest.raises(Conflict, match="optimizer's moments, its place in the data and its random states") as refused:
        extend(session, folder, _ended(session, folder), steps=1)
    assert refused.value.possible == ["retry", "clone"]


def test_what_did_not_complete_is_resumed_instead(session: Session, folder: DataFolder) -> None:
    job = _ended(session, folder, JobStatus.FAILED, 10)
    with pytest.raises(Conflict, match="only a completed training can") as refused:
        extend(session, folder, job, steps=1)
    assert refused.value.possible == ["resume", "retry", "clone"]
