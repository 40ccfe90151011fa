"""The receipt of a completed training, and running it again, on its page."""

from __future__ import annotations

import re
from html import unescape

import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from app.core.models.models import BaseModel
from app.core.paths import DataFolder
from tests.jobs.steps import MakeJob, advance, count_jobs
from tests.receipts import write_receipt


@pytest.fixture
def completed(database: Database, folder: DataFolder, registered: tuple[BaseModel, Dataset], make_job: MakeJob) -> Job:
    """A completed training with its receipt."""
    summary = {"train_loss": 1.5, "eval_loss": 1.25}
    job = advance(
        database, make_job("mine"), JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED, summary=summary
    )
    write_receipt(folder, job, *registered)
    return job


def test_a_completed_training_shows_its_receipt_and_runs_again(
    client: TestClient, database: Database, completed: Job
) -> None:
    page = client.get(f"/jobs/{completed.id}").text
    assert f"sha256 {'ab' * 32}" in page
    assert ">torch</th><td>2.13.0</td>" in page
    assert f'action="/jobs/{completed.id}/rerun"' in page
    receipt = client.get(f"/jobs/{completed.id}/receipt")
    assert receipt.json()["seed"] == 42
    assert f'filename="loradeck-job-{completed.id}-receipt.json"' in receipt.headers["content-disposition"]
    response = client.post(f"/jobs/{completed.id}/rerun", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, f"/jobs/{completed.key + 1}")
    page = client.get(f"/jobs/{completed.key + 1}").text
    assert f'runs again <a href="/jobs/{completed.id}">' in page


@pytest.mark.parametrize(
    ("loss", "differences", "said"),
    [
        (1.25, [], ["✓ Same losses as job #1", "Same rows, model, versions and hardware."]),
        (
            1.26,
            ["peft: 0.1 then, 0.2 now"],
            ["⚠ Other losses than job #1", "Not the same as then: peft: 0.1 then"],
        ),
    ],
)
def test_a_run_again_says_whether_it_came_to_the_same(
    client: TestClient, database: Database, completed: Job, loss: float, differences: list[str], said: list[str]
) -> None:
    client.post(f"/jobs/{completed.id}/rerun")
    with database.read() as session:
        again = queue.get_job(session, completed.key + 1)
    summary = {"train_loss": 1.5, "eval_loss": loss, "rerun_of": 1, "rerun_differences": differences}
    advance(database, again, JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED, summary=summary)
    page = unescape(client.get(f"/jobs/{again.id}").text)
    assert all(text in page for text in said)


def test_a_receipt_names_the_hub_sources(
    client: TestClient, folder: DataFolder, completed: Job, registered: tuple[BaseModel, Dataset]
) -> None:
    assert "source</th>" not in client.get(f"/jobs/{completed.id}").text
    source = {"kind": "hub", "hub_id": "org/rows", "revision": "c0ffee"}
    dataset = {"name": "small", "sha256": "cd" * 32, "source": source}
    base = {"name": "tiny", "sha256": "ab" * 32, "hub_id": "org/model"}
    write_receipt(folder, completed, *registered, dataset=dataset, base_model=base)
    page = client.get(f"/jobs/{completed.id}").text
    assert "org/rows" in page
    assert "revision c0ffee" in page
    assert "org/model" in page


def test_a_run_that_was_stopped_and_saved_says_so_and_shows_what_it_came_to(
    client: TestClient, database: Database, folder: DataFolder, registered: tuple[BaseModel, Dataset], make_job: MakeJob
) -> None:
    summary = {"stopped_by_user": True, "steps": 4, "adapter_bytes": 2048}
    states = (JobStatus.STARTING, JobStatus.RUNNING, JobStatus.CANCELLED)
    job = advance(database, make_job(), *states, summary=summary)
    write_receipt(folder, job, *registered)
    page = client.get(f"/jobs/{job.id}").text
    assert re.search(r'status-cancelled">.*</span> stopped, saved</span>', page)
    assert f'data-title="stopped, saved · #{job.id} ' in page
    assert "at step 4" in page
    assert 'id="receipt"' in page
    assert "/rerun" not in page
    assert "stopped, saved" in client.get("/jobs").text
    assert client.get(f"/jobs/{job.id}/receipt").status_code == 200
    dropped = advance(database, make_job(), *states)
    assert "stopped, saved" not in client.get(f"/jobs/{dropped.id}").text


def test_without_a_receipt_nothing_is_run_again(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED)
    assert "/rerun" not in client.get(f"/jobs/{job.id}").text
    assert client.get(f"/jobs/{job.id}/receipt").status_code == 409
    response = client.post(f"/jobs/{job.id}/rerun")
    assert response.status_code == 409
    assert "left no receipt" in response.text
    assert count_jobs(database) == 1
