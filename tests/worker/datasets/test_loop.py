"""A job is queued on a hub dataset and waits; the worker imports it, and the job trains on what was pinned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.datasets.hub import HubReference, add_from_hub, import_again
from app.core.datasets.kinds import RowKind
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.jobs.models import Job
from app.core.jobs.status import ENDED, JobStatus
from tests.worker.conftest import ScriptedWorker
from tests.worker.datasets.test_importer import LATER, lines, publish
from tests.worker.fake_hub import COMMIT, Hub
from worker.payload import build_payload

MakeJob = Callable[..., Job]


@pytest.fixture
def coming(scripted: ScriptedWorker, hub: Hub, tmp_path: Path) -> Dataset:
    """A hub dataset whose import is queued."""
    publish(hub, tmp_path, {"train.jsonl": lines("one", "two", "three")})
    scripted.follow("import")
    with scripted.database.write() as session:
        return add_from_hub(session, HubReference("owner/data"))


def _ended(scripted: ScriptedWorker, job: Job) -> Job:
    scripted.run_until(lambda: scripted.job(job).status in ENDED)
    return scripted.job(job)


def _dataset(scripted: ScriptedWorker, dataset: Dataset) -> Dataset:
    with scripted.database.read() as session:
        return session.get_one(Dataset, dataset.id)


def _payload(scripted: ScriptedWorker, job: Job, tmp_path: Path) -> dict[str, Any]:
    with scripted.database.read() as session:
        payload: dict[str, Any] = build_payload(session, scripted.folder, tmp_path, job)["dataset"]
        return payload


def test_a_job_waits_for_its_dataset_and_then_runs(
    scripted: ScriptedWorker, hub: Hub, tmp_path: Path, coming: Dataset, make_job: MakeJob
) -> None:
    job = _ended(scripted, make_job(dataset="data"))
    assert job.status == JobStatus.COMPLETED
    dataset = _dataset(scripted, coming)
    assert (dataset.status, dataset.rows, dataset.format, dataset.kind) == (
        DatasetStatus.READY, 3, "alpaca", RowKind.MESSAGES,
    )  # fmt: skip
    publish(hub, tmp_path, {"train.jsonl": lines("other")}, LATER)
    payload = _payload(scripted, job, tmp_path)
    assert (payload["source"]["revision"], payload["sha256"]) == (COMMIT, dataset.rows_sha256)
    rows = [json.loads(line)["messages"][1]["content"] for line in Path(payload["path"]).read_text().splitlines()]
    assert rows == ["one", "two", "three"]


def test_a_failed_import_fails_the_job_with_the_reason_and_is_done_again(
    scripted: ScriptedWorker, hub: Hub, tmp_path: Path, coming: Dataset, make_job: MakeJob
) -> None:
    hub.gated.add("owner/data")
    job = _ended(scripted, make_job(dataset="data"))
    assert (job.status, job.attempts) == (JobStatus.FAILED, 0)
    assert job.error is not None
    assert job.error["message"].startswith("Dataset data is not available: Access to owner/data must be requested")
    failed = _dataset(scripted, coming)
    assert failed.status == DatasetStatus.FAILED
    assert "secrets set hf_token" in str(failed.error)
    hub.gated.clear()
    with scripted.database.write() as session:
        import_again(session, failed)
    assert _ended(scripted, make_job(dataset="data")).status == JobStatus.COMPLETED
    assert _dataset(scripted, coming).rows == 3


def test_what_does_not_fit_is_said_when_the_job_would_start(
    scripted: ScriptedWorker, hub: Hub, tmp_path: Path, coming: Dataset, make_job: MakeJob
) -> None:
    publish(hub, tmp_path, {"train.jsonl": lines("the only one")}, LATER)
    job = _ended(scripted, make_job(dataset="data", eval_fraction=0.5))
    assert job.status == JobStatus.FAILED
    assert job.error is not None
    assert job.error["message"].startswith("The job could not start: eval_fraction: data has 1 row")


def test_rows_that_vanish_before_they_are_registered_fail_the_import(
    scripted: ScriptedWorker, coming: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.settle.rows_path", lambda *_: Path("/nowhere"))
    scripted.run_until(lambda: _dataset(scripted, coming).status != DatasetStatus.IMPORTING)
    assert _dataset(scripted, coming).error == "The rows of data are gone. Import it again."
