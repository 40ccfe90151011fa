"""An upload that is not checked at once: it is stored and waits, shows what was found, and is mended or removed."""

from __future__ import annotations

import asyncio
import re
import time
from html import unescape
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

from app.core.boot import boot_id, uptime_seconds
from app.core.database import Database
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.datasets.store import list_datasets
from app.core.jobs import queue
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.status import ENDED, JobKind, JobStatus, Lane
from app.core.paths import DataFolder
from app.datasets import uploading
from tests.data_lane import DataLane

FAQ = b'{"question": "Q", "answer": "A"}\n'
GOOD = b'{"prompt": "Q", "completion": "A"}\n'


@pytest.fixture
def paused(data_lane: DataLane, monkeypatch: pytest.MonkeyPatch) -> DataLane:
    """Nothing is checked yet, and nobody waits long."""
    monkeypatch.setattr("app.datasets.router.FORM_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(uploading, "NO_WORKER_SECONDS", 0.05)
    data_lane.paused = True
    return data_lane


def _upload(client: TestClient, body: bytes, name: str = "faq.jsonl") -> str:
    response = client.post("/datasets", files={"file": (name, body)}, follow_redirects=False)
    assert response.status_code == 303
    return response.headers["location"]


def _import_of(database: Database) -> Job:
    with database.read() as session:
        return session.exec(select(Job).order_by(col(Job.id).desc())).first() or pytest.fail("there is no job")


def _go_on(lane: DataLane, database: Database) -> Job:
    lane.paused = False
    deadline = time.monotonic() + 20
    while (job := _import_of(database)).status not in ENDED:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return job


def test_the_page_of_an_upload_that_takes_longer_shows_its_import_then_its_rows(
    client: TestClient, database: Database, paused: DataLane
) -> None:
    place = _upload(client, GOOD)
    page = unescape(client.get(place).text)
    assert "from faq.jsonl" in page
    assert "Its import waits in the queue. Jobs may be queued on it: they wait." in page
    assert "The worker does not run, so the rows are not read yet." in page
    assert f'action="/jobs/{_import_of(database).id}/cancel"' in page
    _alive(database)
    assert "The worker does not run" not in client.get(place).text
    assert _go_on(paused, database).status == JobStatus.COMPLETED
    assert "Rows 1 to 1" in client.get(place).text


def _alive(database: Database) -> None:
    with database.write() as session:
        facts: dict[str, Any] = {"pid": 1, "pid_started_at": 0, "version": "", "started_at": 0}
        session.add(WorkerState(**facts, boot_id=boot_id(), heartbeat_at=uptime_seconds()))


def test_problems_are_shown_while_the_check_runs(client: TestClient, database: Database, paused: DataLane) -> None:
    place = _upload(client, GOOD)
    with database.write() as session:
        job, _ = queue.claim_next(session, Lane.DATA) or pytest.fail("there is no import")
        job = queue.advance(session, job, JobStatus.RUNNING)
        job.summary, job.step, job.max_steps = {"problems": ["row 3: <b>: is empty"]}, 25, 100
        session.add(job)
    page = client.get(place).text
    assert "row 3: &lt;b&gt;: is empty" in page
    assert '<progress value="25" max="100"' in page
    with database.write() as session:
        queue.advance(session, queue.get_job(session, job.key), JobStatus.CANCELLED)


def test_a_file_of_unknown_format_is_mapped_on_its_page(
    client: TestClient, database: Database, paused: DataLane
) -> None:
    place = _upload(client, FAQ)
    assert _go_on(paused, database).status == JobStatus.FAILED
    page = unescape(client.get(place).text)
    assert "the first row has the fields 'question', 'answer'" in page
    assert 'value="prompt=question"' in page
    wrong = client.post(f"{place}/import", data={"column": ["prompt=question", "completion=anser"]})
    assert wrong.status_code == 200
    _go_on(paused, database)
    page = unescape(client.get(place).text)
    assert "the first row has no 'anser'" in page
    client.post(f"{place}/import", data={"column": ["prompt=question", "completion=answer", ""]})
    assert _go_on(paused, database).status == JobStatus.COMPLETED
    assert "completion is the column answer" in client.get(place).text
    assert client.post(f"{place}/import").status_code == 409


def test_what_cannot_be_used_is_removed_with_its_file_and_its_job_stays(
    client: TestClient, database: Database, folder: DataFolder, paused: DataLane
) -> None:
    place = _upload(client, GOOD + b"{oops\n")
    assert client.post(f"{place}/forget").status_code == 409
    failed = _go_on(paused, database)
    page = client.get(place).text
    assert "row 2: is not valid JSON" in page
    assert "Mend these rows, or leave them out, and upload the file again" in page
    assert "Read columns as" not in page, "mapping mends no broken row"
    assert client.post(f"{place}/forget").url.path == "/datasets"
    assert client.get(place).status_code == 404
    assert not (folder.dataset(failed.dataset_id or 0)).exists()
    assert client.get(f"/jobs/{failed.id}").status_code == 200
    with database.read() as session:
        assert [dataset.name for dataset in list_datasets(session)] == ["small"]


def test_a_failed_upload_gives_its_name_to_the_next(client: TestClient, database: Database, paused: DataLane) -> None:
    _upload(client, b"{oops\n")
    _go_on(paused, database)
    place = _upload(client, GOOD)
    assert _go_on(paused, database).status == JobStatus.COMPLETED
    assert "Rows 1 to 1" in client.get(place).text
    with database.read() as session:
        assert [dataset.name for dataset in list_datasets(session)] == ["faq", "small"]


def test_a_cancelled_upload_is_forgotten_and_said(
    client: TestClient, database: Database, paused: DataLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody cancels the job on its page while the upload's sender still waits."""

    async def cancel(database: Database, job_id: int, _seconds: float, **_options: bool) -> Job:
        with database.write() as session:
            return queue.request_cancel(session, queue.get_job(session, job_id))

    monkeypatch.setattr("app.datasets.router.wait_for_import", cancel)
    response = client.post("/datasets", files={"file": ("faq.jsonl", GOOD)})
    assert response.status_code == 422
    assert "The import of the file was cancelled (job 1)." in response.text
    with database.read() as session:
        assert [dataset.name for dataset in list_datasets(session)] == ["small"]


def test_the_api_answers_202_with_the_job_and_why(
    client: TestClient, database: Database, folder: DataFolder, paused: DataLane
) -> None:
    def add(body: bytes, name: str, wait: float) -> dict[str, Any]:
        response = client.post(f"/api/v1/datasets?wait={wait}", files={"file": (name, body)})
        assert response.status_code == 202
        pending: dict[str, Any] = response.json()
        return pending

    pending = add(GOOD, "a.jsonl", 30)
    assert (pending["name"], pending["status"], pending["rows"]) == ("a", "importing", None)
    assert pending["message"] == "The file is stored, but no worker is running to check its rows."
    assert "loradeck worker" in pending["advice"]
    assert client.delete("/api/v1/datasets/a").status_code == 409
    assert _go_on(paused, database).id == pending["job_id"]
    assert client.get("/api/v1/datasets/a").json()["rows"] == 1
    paused.paused = True
    _alive(database)
    pending = add(b"{oops\n", "b.jsonl", 0)
    assert pending["message"] == "The file is stored; its rows are still being checked."
    _go_on(paused, database)
    job = client.get(f"/api/v1/jobs/{pending['job_id']}").json()
    assert job["error"]["faults"][0]["message"].startswith("row 1: is not valid JSON")
    assert client.get("/api/v1/datasets/b").json()["status"] == "failed"
    assert client.delete("/api/v1/datasets/b").status_code == 204
    assert client.get("/api/v1/datasets/b").status_code == 404
    assert sorted(path.name for path in (folder.home / "datasets").iterdir()) == ["1", "2"]


def test_a_training_that_waits_for_a_file_of_no_use_says_what_to_do(
    client: TestClient, database: Database, paused: DataLane
) -> None:
    _upload(client, b"{oops\n")
    body = {"spec": {"base_model": "tiny", "dataset": "faq"}}
    training = client.post("/api/v1/jobs", json=body).json()
    with database.read() as session:
        assert session.get_one(Dataset, 2).status == DatasetStatus.IMPORTING
    paused.paused = False
    deadline = time.monotonic() + 20
    while (job := client.get(f"/api/v1/jobs/{training['id']}").json())["status"] != "failed":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert re.match(r"Dataset faq is not available: file: row 1: is not valid JSON", job["error"]["message"])
    assert job["error"]["advice"] == "Upload the file again, then submit this job again."


def test_waiting_holds_no_thread_and_ends_with_the_job(database: Database) -> None:
    _alive(database)
    with database.write() as session:
        job = queue.enqueue(session, Job(name="i", kind=JobKind.IMPORT, created_at=0))

    async def end_soon() -> float:
        begin = time.monotonic()
        waiting = asyncio.create_task(uploading.wait_for_import(database, job.key, 30))
        await asyncio.sleep(0.1)
        with database.write() as session:
            queue.request_cancel(session, queue.get_job(session, job.key))
        assert (await waiting).status == JobStatus.CANCELLED
        return time.monotonic() - begin

    assert asyncio.run(end_soon()) < 10


def test_a_page_is_not_held_up_for_a_file_that_takes_longer_than_it_would_wait(database: Database) -> None:
    _alive(database)
    with database.write() as session:
        job = queue.enqueue(session, Job(name="i", kind=JobKind.IMPORT, created_at=0, eta_seconds=90.0))
    began = time.monotonic()
    waited = asyncio.run(uploading.wait_for_import(database, job.key, 30, is_watched=True))
    assert (waited.status, time.monotonic() - began < 15) == (JobStatus.QUEUED, True)
