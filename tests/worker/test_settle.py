"""How a job ended is on record once its process has ended, and what an import brought with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.models import Attempt, Job
from app.core.jobs.states import list_states
from app.core.jobs.status import JobKind, JobStatus
from app.core.metrics.models import MemoryReading
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from tests.saved_states import save_states
from tests.worker.tiny import save_tiny_model
from worker.payload import build_payload
from worker.settle import End, settle

COMMIT = "d" * 40
_SEEN = End()
MakeJob = Callable[..., Job]


@pytest.mark.model
def test_a_hub_models_commit_is_kept_and_told_to_the_jobs_on_it(
    database: Database, folder: DataFolder, tmp_path: Path
) -> None:
    with database.write() as session:
        model = BaseModel(name="tiny", source={"kind": "hub", "hub_id": "owner/tiny"}, created_at=0.0)
        session.add(model)
        session.flush()
        save_tiny_model(folder.model(model.key))
        job = queue.enqueue(session, Job(name="i", kind=JobKind.IMPORT, base_model_id=model.key, created_at=0.0))
        for status in (JobStatus.STARTING, JobStatus.RUNNING):
            job = queue.advance(session, job, status)
        outcome = {"outcome": "completed", "summary": {"revision": COMMIT}}
        attempt = Attempt(job_id=job.key, number=1, fence=1, started_at=0.0, outcome=outcome, exit_code=0)
        assert settle(session, folder, job, attempt).status == JobStatus.COMPLETED
    with database.read() as session:
        stored = session.get_one(BaseModel, model.key)
        assert (stored.status, stored.source["revision"]) == (ModelStatus.READY, COMMIT)
        merge = Job(
            name="m", kind=JobKind.PLAYGROUND, base_model_id=stored.key, source_job_id=job.key, created_at=0.0,
            spec={"base": True, "prompt": "x", "max_new_tokens": 1},
        )  # fmt: skip
        assert build_payload(session, folder, tmp_path, merge)["base_model"]["revision"] == COMMIT


def _ended(
    database: Database, folder: DataFolder, job: Job, outcome: dict[str, Any] | None, end: End = _SEEN, **fields: Any
) -> Job:
    """The training job, once its process has ended with that outcome; `fields` are those of its row."""
    with database.write() as session:
        for status in (JobStatus.STARTING, JobStatus.RUNNING):
            job = queue.advance(session, queue.get_job(session, job.key), status, **fields)
        attempt = Attempt(job_id=job.key, number=1, fence=1, started_at=0.0, outcome=outcome, exit_code=1)
        return settle(session, folder, job, attempt, end)


def _failed(kind: str) -> dict[str, Any]:
    return {"outcome": "failed", "summary": {}, "error": {"kind": kind, "message": "m", "advice": "a"}}


@pytest.mark.parametrize("planned", [False, True])
def test_a_process_that_was_ended_without_the_users_wish_goes_on_later(
    planned: bool, database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    """A machine that stops sends SIGTERM to everything: to the child as well, and maybe before its worker stops."""
    outcome = {"outcome": "cancelled", "summary": {}, "error": None}
    job = _ended(database, folder, make_job(), outcome, End(planned=planned))
    assert (job.status, job.error) == (JobStatus.QUEUED, None)


def test_a_light_job_that_dies_fails_and_goes_on_where_its_worker_was_gone_too(
    database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    for end, status in ((End(), JobStatus.FAILED), (End(unseen="Nobody saw it."), JobStatus.QUEUED)):
        with database.write() as session:
            preview = queue.enqueue(session, Job(name="p", kind=JobKind.PREVIEW, created_at=0.0))
        assert _ended(database, folder, preview, None, end).status == status


def test_a_stop_that_saved_is_no_failure_and_keeps_what_it_came_to(
    database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    outcome = {"outcome": "cancelled", "summary": {"stopped_by_user": True, "steps": 4}, "error": None}
    job = _ended(database, folder, make_job(), outcome, save_requested=True)
    assert (job.status, job.summary) == (JobStatus.CANCELLED, outcome["summary"])


@pytest.mark.parametrize(
    ("outcome", "status", "kind"),
    [
        (_failed("model_load"), JobStatus.FAILED, "model_load"),
        (_failed("disk_full"), JobStatus.QUEUED, "disk_full"),
        (None, JobStatus.QUEUED, "child_died"),
    ],
)
def test_a_stop_that_could_not_save_goes_on_where_that_may_help(
    outcome: dict[str, Any] | None,
    status: JobStatus,
    kind: str,
    database: Database,
    folder: DataFolder,
    make_job: MakeJob,
) -> None:
    job = _ended(database, folder, make_job(), outcome, save_requested=True)
    assert (job.status, job.paused) == (status, kind == "disk_full")
    assert (job.error or job.pause_reason or {}).get("kind") == kind
    job = _ended(database, folder, make_job(), outcome, save_requested=True, cancel_requested=True)
    assert job.status == JobStatus.CANCELLED


def test_what_a_job_held_of_its_gpu_is_kept_with_its_residual(
    database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    job = make_job()
    planned = {"weights": 100, "adapter": 10, "optimizer": 20, "working": 70, "overhead": 50}
    measured = {"weights": 100, "adapter": 10, "optimizer": 20, "working": 90}
    memory = {"device": "card", "allocated_bytes": 220, "planned": planned, "measured": measured}
    with database.write() as session:
        for time, used in ((1.0, 200), (2.0, 300), (3.0, None)):
            devices = [{"process_vram_bytes": used}]
            session.add(MemoryReading(job_id=job.key, time=time, data={"devices": devices, "host": {}}))
    ended = _ended(database, folder, job, {"outcome": "completed", "summary": {"memory": memory}})

    assert ended.summary["memory"]["measured"] == {**measured, "overhead": 80}
    assert ended.summary["memory"]["residual"] == {
        "weights": 0, "adapter": 0, "optimizer": 0, "working": 20, "overhead": 30,
    }  # fmt: skip


def test_without_readings_of_the_process_its_overhead_is_not_known(
    database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    memory = {
        "device": "card",
        "allocated_bytes": 220,
        "planned": {"working": 70, "overhead": 50},
        "measured": {"working": 90},
    }
    ended = _ended(database, folder, make_job(), {"outcome": "completed", "summary": {"memory": memory}})

    assert ended.summary["memory"]["residual"] == {"working": 20}


@pytest.mark.parametrize(
    ("summary", "kept"), [({"steps": 8}, [8]), ({"steps": 8, "best_eval_step": 4}, [4, 8]), ({"steps": 9}, [])]
)
def test_of_a_completed_training_the_state_of_its_end_is_kept(
    summary: dict[str, Any], kept: list[int], database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    """And that of its best eval; one that lacks the end is of no use to a longer run."""
    job = make_job()
    save_states(folder, job, 4, 6, 8)
    _ended(database, folder, job, {"outcome": "completed", "summary": summary, "error": None})
    assert [state.step for state in list_states(folder, job)] == kept


def test_an_end_drops_the_states_of_those_that_ended_long_ago(
    database: Database, folder: DataFolder, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.jobs.states.KEPT_JOBS", 1)
    first, second = make_job(), make_job()
    for job in (first, second):
        save_states(folder, job, 2)
        _ended(database, folder, job, _failed("model_load"))
    assert [len(list_states(folder, job)) for job in (first, second)] == [0, 1]
