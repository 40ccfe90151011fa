"""A sweep from the form: its preview, its queueing, its page."""

from __future__ import annotations

import re
import shutil
from html import unescape
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.jobs import queue
from app.core.jobs.status import JobStatus
from app.core.models.models import BaseModel
from tests.core.planning.conftest import CONFIGS
from tests.jobs.steps import FORM, advance, count_jobs

AXES = "learning_rate: 1e-4, 2e-4\nr: 8, 16"


@pytest.fixture(autouse=True)
def eight_billion(registered: tuple[BaseModel, Dataset]) -> None:
    """The registered model's config is Llama 3 8B's."""
    shutil.copy(CONFIGS / "llama-3-8b.json", Path(registered[0].path or "") / "config.json")


def _text(markup: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", unescape(markup)).split())


def test_the_preview_lists_each_job_with_its_fit_and_the_time_of_all(client: TestClient) -> None:
    typed = {**FORM, "sweep": "per_device_train_batch_size: 1, 64", "vram_gb": "24"}
    region = client.post("/jobs/new/sweep", data=typed).text
    told = _text(region)
    assert "2 jobs" in told
    assert "1 would not fit" in told
    assert "how long they take is not known" in told
    assert re.search(r"1 ✓ fits [\d.]+ GiB", told)
    assert re.search(r"64 ✕ does not fit [\d.]+ GiB", told)
    assert "hx-trigger" in region
    assert "hx-trigger" not in client.post("/jobs/new/sweep", data={**FORM, "sweep": ""}).text


def test_the_button_and_the_command_follow_the_sweep(client: TestClient) -> None:
    region = unescape(client.post("/jobs/new/launch", data={**FORM, "sweep": AXES}).text)
    assert "Add 4 jobs to the queue" in region
    assert (
        """loradeck jobs sweep - --name first --over 'learning_rate=["1e-4", "2e-4"]' --over 'r=[8, 16]' <<'YAML'"""
        in region
    )


def test_a_sweep_is_queued_from_the_form_and_has_a_page(client: TestClient, database: Database) -> None:
    response = client.post("/jobs", data={**FORM, "sweep": AXES}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/sweeps/1")
    with database.read() as session:
        second = queue.get_job(session, 2)
    advance(database, second, JobStatus.STARTING, JobStatus.RUNNING)
    advance(database, second, JobStatus.COMPLETED, summary={"eval_loss": 1.25, "train_loss": 1.5})
    page = _text(client.get("/sweeps/1").text)
    assert "Sweep of 4 jobs" in page
    assert page.index("#2 first · learning_rate 1e-4, r 16") < page.index("#1 first · learning_rate 1e-4, r 8")
    assert "/compare?ids=2,1,3,4" in client.get("/sweeps/1").text
    assert 'of <a href="/sweeps/1">sweep #1</a>' in client.get("/jobs/3").text
    assert 'href="/jobs/3"' in client.get("/sweeps/1").text
    assert client.post("/sweeps/1/cancel", follow_redirects=False).status_code == 303
    jobs = client.get("/api/v1/sweeps/1").json()["jobs"]
    assert [job["status"] for job in jobs] == ["cancelled", "completed", "cancelled", "cancelled"]
    assert client.get("/sweeps/2").status_code == 404


@pytest.mark.parametrize(
    ("sweep", "place", "words"),
    [
        ("rank: 8", "errors-sweep", "unknown field 'rank'"),
        ("r: 8, 0", "errors-r", "greater than or equal to 1 (got 0) (with r 0)"),
        ("r: 8, 8", "errors-sweep", "two jobs would be the same"),
    ],
)
def test_a_faulty_sweep_queues_nothing_and_stays_in_the_form(
    client: TestClient, database: Database, sweep: str, place: str, words: str
) -> None:
    response = client.post("/jobs", data={**FORM, "sweep": sweep})
    page = unescape(response.text)
    assert response.status_code == 422
    errors = page[page.index(f'id="{place}"') :]
    assert words in errors[: errors.index("</ul>")]
    assert f">{sweep}</textarea>" in page
    assert count_jobs(database) == 0
    preview = unescape(client.post("/jobs/new/sweep", data={**FORM, "sweep": sweep}).text)
    assert words in preview


def test_the_api_plans_and_queues_a_sweep(client: TestClient, database: Database) -> None:
    body = {"spec": {"base_model": "tiny", "dataset": "small"}, "over": {"r": [8, 16]}, "name": "s"}
    planned = client.post("/api/v1/sweeps", json={**body, "dry_run": True, "vram_gb": 24}).json()
    assert [job["differences"] for job in planned["jobs"]] == [{"r": 8}, {"r": 16}]
    assert {job["verdict"] for job in planned["jobs"]} == {"fits"}
    assert (planned["seconds"], planned["unknown"]) == (0, 2)
    assert count_jobs(database) == 0
    queued = client.post("/api/v1/sweeps", json=body)
    assert queued.status_code == 201
    assert [(job["name"], job["sweep_id"]) for job in queued.json()["jobs"]] == [("s · r 8", 1), ("s · r 16", 1)]
    refused = client.post("/api/v1/sweeps", json={**body, "over": {"r": [8, -1]}})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "r")
    assert client.post("/api/v1/sweeps", json={**body, "over": {}}).json()["error"]["field"] == "sweep"
    assert count_jobs(database) == 2


def test_without_scripts_a_link_to_the_form_lists_the_jobs_too(client: TestClient) -> None:
    page = client.get("/jobs/new", params={**FORM, "sweep": AXES, "vram_gb": "24"}).text
    assert "<strong>4 jobs</strong>" in page
    assert "Add 4 jobs to the queue" in page
    assert "<noscript><button" in page[page.index('id="help-sweep"') :]
