"""The page of a job that ran out of memory: what happened, and buttons that queue it again with a change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from app.core.metrics.models import MemoryReading
from tests.autopsies import GIB, make_error

Fail = Callable[..., Job]


@pytest.fixture
def fail(database: Database, make_job: Callable[..., Job]) -> Fail:
    """A job with batch 4 and accumulation 4 that ran out of memory; keywords override what was noted."""

    def failed(spec: dict[str, Any] | None = None, **noted: Any) -> Job:
        sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
        job = make_job("mine", **{**sizes, **(spec or {})})
        with database.write() as session:
            for status in (JobStatus.STARTING, JobStatus.RUNNING):
                job = queue.advance(session, queue.get_job(session, job.key), status)
            return queue.advance(session, job, JobStatus.FAILED, error=make_error(**noted), max_steps=40)

    return failed


def read_job(database: Database, job_id: int) -> Job:
    with database.read() as session:
        return queue.get_job(session, job_id)


def test_page_tells_where_it_happened_with_which_rows_and_who_else_was_there(client: TestClient, fail: Fail) -> None:
    page = client.get(f"/jobs/{fail().id}").text
    section = page[page.index('id="job-autopsy"') :]
    for text in (
        "<dt>phase</dt><dd>train</dd>",
        '<dt>step</dt><dd>3 <span class="muted">of 40</span></dd>',
        "4 sequences, 1,800 tokens",
        "1 of 4 of its step, 248 places of padding",
        "row\u00a017\u00a0(512), row\u00a04\u00a0(500)",
        "<dt>available</dt><dd>13.0 GiB",
        "<dt>peak allocated</dt><dd>10.0 GiB",
        "weights 8.0 GiB, gradients 256.0 MiB",
        "On NVIDIA GeForce RTX 3060 then",
        "python3.11 <strong>(this job)</strong></td><td>812</td>",
        "&lt;b&gt;firefox</td><td>99</td>",
        "GPU 0 has 1 of 12 GiB free. Of the allocated memory",
    ):
        assert text in section


def test_a_button_queues_the_job_again_with_the_effective_batch_kept(
    client: TestClient, database: Database, fail: Fail
) -> None:
    job = fail()
    page = client.get(f"/jobs/{job.id}").text
    keys = re.findall(r'name="change" value="([^"]+)"', page)
    assert keys[:3] == ["checkpointing", "batch-2", "batch-1"]
    assert f'action="/jobs/{job.id}/changes"' in page
    assert "Batch 1, accumulation 16" in page
    answer = client.post(f"/jobs/{job.id}/changes", data={"change": "batch-1"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job.key + 1}")
    again = read_job(database, job.key + 1)
    changed = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16}
    assert (again.status, again.spec) == (JobStatus.QUEUED, {**job.spec, **changed})
    assert (again.name, again.source_job_id) == ("mine (Batch 1, accumulation 16)", None)


def test_last_minute_before_the_end_is_drawn(client: TestClient, database: Database, fail: Fail) -> None:
    job = fail()
    with database.write() as session:
        for time in (38.0, 41.0, 99.0, 130.0):
            data = {"available": False, "devices": [], "host": {"ram_used_bytes": GIB}}
            session.add(MemoryReading(job_id=job.id, time=time, data=data))
    page = client.get(f"/jobs/{job.id}").text
    figure = page[page.index('id="autopsy-chart"') :]
    points = re.search(r"data-options>(.*?)</script>", figure)
    assert points is not None
    assert json.loads(points[1])["readings"]["time"] == [41.0, 99.0]
    assert "Last 60 seconds" in figure


def test_what_no_change_helps_offers_none(client: TestClient, database: Database, fail: Fail) -> None:
    job = fail({"per_device_train_batch_size": 4}, memory="host", allocator=None, batch=None, device=None)
    page = client.get(f"/jobs/{job.id}").text
    assert 'value="checkpointing"' in page, "on the CPU the host's memory is what training takes"
    with database.write() as session:
        session.merge(worker_with_cuda())
    page = client.get(f"/jobs/{job.id}").text
    assert 'name="change"' not in page
    assert "It was the host's memory that ran out." in unescape(page)
    assert client.post(f"/jobs/{job.id}/changes", data={"change": "checkpointing"}).status_code == 409


def worker_with_cuda() -> Any:
    from app.core.jobs.models import WorkerState

    capabilities = {"cuda": "13.0", "paged": True, "cannot": {}}
    return WorkerState(
        pid=1, pid_started_at=0.0, boot_id="b", version="0", started_at=0.0, heartbeat_at=0.0, capabilities=capabilities
    )


def test_a_change_that_is_none_of_the_jobs_is_refused(client: TestClient, database: Database, fail: Fail) -> None:
    job = fail()
    answer = client.post(f"/jobs/{job.id}/changes", data={"change": "batch-3"})
    assert answer.status_code == 409
    assert "batch-3" in answer.text
    assert client.post(f"/jobs/{job.id}/changes").status_code == 422
    assert client.get(f"/jobs/{job.key + 1}").status_code == 404, "nothing was queued"


def test_job_that_failed_otherwise_has_no_autopsy(client: TestClient, make_job: Callable[..., Job]) -> None:
    job = make_job()
    assert "job-autopsy" not in client.get(f"/jobs/{job.id}").text
    assert client.get(f"/api/v1/jobs/{job.id}/autopsy").status_code == 404
    assert client.post(f"/jobs/{job.id}/changes", data={"change": "batch-1"}).status_code == 404


def test_api_gives_facts_readings_and_changes_and_queues_one(
    client: TestClient, database: Database, fail: Fail
) -> None:
    job = fail()
    autopsy = client.get(f"/api/v1/jobs/{job.id}/autopsy").json()
    assert (autopsy["phase"], autopsy["step"], autopsy["batch"]["tokens"]) == ("train", 3, 1800)
    assert (autopsy["capacity_bytes"], autopsy["readings"]) == (13 * GIB, [])
    assert {"key", "title", "effect", "values", "peak_bytes", "fits"} == set(autopsy["changes"][0])
    answer = client.post(f"/api/v1/jobs/{job.id}/changes", json={"change": "batch-2"})
    assert (answer.status_code, answer.json()["spec"]["gradient_accumulation_steps"]) == (201, 8)
    error = client.get(f"/api/v1/jobs/{job.id}").json()["error"]
    assert (error["kind"], error["autopsy"]["step"]) == ("out_of_memory", 3)
