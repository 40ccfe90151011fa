"""Which training states a job's folder holds, and which are removed."""

from __future__ import annotations

import shutil

import pytest
from sqlmodel import Session

from app.core.jobs import queue, states
from app.core.jobs.models import Job
from app.core.jobs.states import keep_states, list_states, prune_states
from app.core.jobs.status import JobKind, JobStatus
from app.core.paths import DataFolder
from tests.saved_states import save_states


def _ended(session: Session, at: float, status: JobStatus = JobStatus.FAILED) -> Job:
    job = queue.enqueue(session, Job(name="x", kind=JobKind.TRAIN, created_at=0))
    job = queue.advance(session, job, JobStatus.STARTING)
    return queue.advance(session, job, status, finished_at=at)


def test_states_are_listed_by_step_and_what_is_not_whole_is_left_out(session: Session, folder: DataFolder) -> None:
    job = _ended(session, 1.0)
    assert list_states(folder, job) == []
    save_states(folder, job, 10, 2, 3, 4, 5)
    state = folder.job(job.key) / "state"
    (state / "step-3" / "optimizer.pt").write_bytes(b"x")
    (state / "step-4" / "meta.json").unlink()
    shutil.copytree(state / "step-5", state / ".step-5.removed")
    (state / "step-5" / "optimizer.pt").unlink()
    assert [(each.step, each.bytes, each.saved_at) for each in list_states(folder, job)] == [(2, 4, 5.0), (10, 4, 5.0)]


def test_all_but_the_named_states_go(session: Session, folder: DataFolder) -> None:
    job = _ended(session, 1.0)
    save_states(folder, job, 2, 4, 6)
    keep_states(folder, job, {4, None})
    assert [path.name for path in (folder.job(job.key) / "state").iterdir()] == ["step-4"]


def test_states_of_jobs_that_ended_long_ago_go(
    session: Session, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the newest few stay, and of jobs that have not ended."""
    monkeypatch.setattr(states, "KEPT_JOBS", 2)
    waiting = queue.enqueue(session, Job(name="w", kind=JobKind.TRAIN, created_at=0))
    middle, oldest, newest = (_ended(session, at) for at in (2.0, 1.0, 3.0))
    for job in (waiting, middle, oldest, newest):
        save_states(folder, job, 1)
    prune_states(session, folder)
    kept = [job.id for job in (waiting, middle, oldest, newest) if list_states(folder, job)]
    assert kept == [waiting.id, middle.id, newest.id]


def test_states_go_beyond_the_bytes_but_never_the_newest_ones(
    session: Session, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = _ended(session, 2.0), _ended(session, 1.0)
    save_states(folder, large, 1, size=10_000)
    save_states(folder, small, 1)
    prune_states(session, folder)
    assert list_states(folder, small)
    monkeypatch.setattr(states, "KEPT_BYTES", 10_000)
    prune_states(session, folder)
    assert (len(list_states(folder, large)), list_states(folder, small)) == (1, [])
