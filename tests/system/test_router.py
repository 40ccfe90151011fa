"""The dashboard, the GPU page and the page's stream over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.core.boot import boot_id, uptime_seconds
from app.core.database import Database
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.demo import DEMO_DATASET_NAME, DEMO_MODEL_NAME
from app.core.jobs import queue
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.status import JobStatus
from app.core.metrics.store import put_metrics
from app.core.models.models import BaseModel, ModelStatus
from app.core.models.registry import add_imported
from app.web.security import CONTENT_SECURITY_POLICY

MakeJob = Callable[..., Job]
HOST: dict[str, Any] = {
    "ram_total_bytes": 16 * 2**30, "ram_used_bytes": 4 * 2**30, "child_rss_bytes": None, "cpu_percent": None,
    "disk_total_bytes": 100 * 2**30, "disk_free_bytes": 25 * 2**30,
}  # fmt: skip
DEVICE: dict[str, Any] = {
    "index": 0, "name": "Test GPU", "uuid": "x", "vram_total_bytes": 12 * 2**30, "vram_used_bytes": 9 * 2**30,
    "utilization_percent": None, "temperature_celsius": 71, "power_watts": 168.3, "power_limit_watts": None,
    "process_vram_bytes": None,
    "processes": [{"pid": 7, "process_vram_bytes": None, "name": "<b>x</b>", "is_child": False}],
}  # fmt: skip


def beat(database: Database, **reading: Any) -> None:
    """A worker that is alive and has just taken a reading."""
    values = {"available": False, "reason": "NVML was not found.", "devices": [], "host": HOST, **reading}
    now = uptime_seconds()
    with database.write() as session:
        session.merge(
            WorkerState(
                pid=1, pid_started_at=0, boot_id=boot_id(), version="0", started_at=0, heartbeat_at=now, reading=values
            )
        )


def start(database: Database, job: Job) -> Job:
    for status in (JobStatus.STARTING, JobStatus.RUNNING):
        with database.write() as session:
            job = queue.advance(session, queue.get_job(session, job.key), status)
    return job


def test_empty_dashboard_offers_one_button(client: TestClient, database: Database) -> None:
    beat(database)
    page = client.get("/").text
    assert 'action="/jobs/demo"' not in page
    assert "demo job" not in page
    assert "Add a base model" in page
    with database.write() as session:
        session.add(BaseModel(name=DEMO_MODEL_NAME, status=ModelStatus.READY, created_at=0.0))
        session.add(
            Dataset(name=DEMO_DATASET_NAME, format="alpaca", rows=2, bytes=1, sha256="", rows_sha256="", created_at=0.0)
        )
    page = client.get("/").text
    assert page.count('<button type="submit">') == 1
    assert "Run the demo job" in page
    assert client.post("/jobs/demo", follow_redirects=False).headers["location"] == "/jobs/1"
    assert "Run the demo job" not in client.get("/").text


def test_demo_is_offered_while_its_model_is_imported(client: TestClient, database: Database) -> None:
    beat(database)
    with database.write() as session:
        model = add_imported(session, DEMO_MODEL_NAME, {"kind": "demo"})
        session.add(
            Dataset(name=DEMO_DATASET_NAME, format="alpaca", rows=2, bytes=1, sha256="", rows_sha256="", created_at=0.0)
        )
    with database.read() as session:
        start(database, session.exec(select(Job).where(Job.base_model_id == model.id)).one())
    page = client.get("/").text
    assert "#1 import" in page
    assert "Run the demo job" in page
    assert "starts when its model is ready" in page


def test_dashboard_shows_what_runs_and_what_waits_in_order(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    beat(database)
    running, first, second = make_job("now"), make_job("next"), make_job("later")
    start(database, running)
    with database.write() as session:
        put_metrics(session, running.key, 3, 1.0, {"loss": 1.5})
    page = client.get("/").text
    assert page.index("#1 now") < page.index(f"#{first.id} next") < page.index(f"#{second.id} later")
    assert "<dt>loss</dt><dd>1.5</dd>" in page.replace("\n", "")


def test_dashboard_region_has_the_figures_of_the_running_job(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = start(database, make_job())
    region = client.get("/", headers={"HX-Request": "true"}).text
    assert "<html" not in region
    assert f'id="loss-chart-{job.id}"' in region


def test_job_that_waits_for_an_import_says_so(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = make_job()
    with database.write() as session:
        session.get_one(BaseModel, job.base_model_id).status = ModelStatus.IMPORTING
    assert "waits for the import of tiny" in client.get("/").text
    assert "waits for the import of tiny" in client.get(f"/jobs/{job.id}").text
    with database.write() as session:
        session.get_one(BaseModel, job.base_model_id).status = ModelStatus.READY
        session.get_one(Dataset, job.dataset_id).status = DatasetStatus.IMPORTING
    assert "waits for the import of small" in client.get("/").text
    assert "waits for the import of small" in client.get(f"/jobs/{job.id}").text
    with database.write() as session:
        session.get_one(Dataset, job.dataset_id).status = DatasetStatus.READY
    assert "waits for the import" not in client.get("/").text


def test_absent_worker_is_said_and_its_old_reading_not_shown(client: TestClient, database: Database) -> None:
    assert "The worker does not run" in client.get("/").text
    beat(database)
    assert "4.0 GiB of 16.0 GiB" in client.get("/").text
    assert "The worker does not run" not in client.get("/").text
    with database.write() as session:
        session.get_one(WorkerState, 1).heartbeat_at = uptime_seconds() - 60
    assert "4.0 GiB of 16.0 GiB" not in (page := client.get("/gpu").text)
    assert "the worker does not run" in page


def test_unreadable_values_are_not_available_rather_than_zero(client: TestClient, database: Database) -> None:
    beat(database, available=True, reason=None, devices=[DEVICE])
    page = client.get("/gpu", headers={"HX-Request": "true"}).text
    assert "9.0 GiB" in page
    assert "168 W" in page
    assert "71 °C" in page
    assert page.count("n/a") == 5  # utilisation, the job's VRAM, a process's VRAM, the child's RSS, the CPU
    assert "&lt;b&gt;x&lt;/b&gt;" in page


def test_dashboard_shows_each_gpu_with_the_readings_that_there_are(client: TestClient, database: Database) -> None:
    beat(database, available=True, reason=None, devices=[DEVICE])
    page = client.get("/").text
    assert "VRAM used, GPU 0" in page
    assert "9.0 GiB of 12.0 GiB" in page
    assert "Test GPU · 71&nbsp;°C · 168&nbsp;W" in page
    assert "busy" not in page  # utilisation is not readable


def test_without_a_gpu_the_page_says_why_and_shows_the_host(client: TestClient, database: Database) -> None:
    beat(database)
    page = client.get("/gpu").text
    assert "GPU: not available. NVML was not found." in page
    assert "25.0 GiB of 100.0 GiB" in page


@pytest.mark.parametrize("path", ["/", "/jobs", "/jobs/new", "/datasets", "/datasets/1", "/models", "/gpu", "/nowhere"])
def test_every_page_obeys_the_policy_it_sends(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert response.headers["vary"] == "HX-Request"
    for forbidden in ("style=", "<style", "onclick", "hx-on", "js:", "javascript:", "<script>"):
        assert forbidden not in response.text


def test_the_gpu_page_says_what_can_be_trained(client: TestClient, database: Database) -> None:
    beat(database)
    assert "not known yet: no worker has said" in client.get("/gpu").text
    with database.write() as session:
        session.get_one(WorkerState, 1).capabilities = {"problem": "it ended with <b>code 1"}
    assert "not known: it ended with &lt;b&gt;code 1" in client.get("/gpu").text
