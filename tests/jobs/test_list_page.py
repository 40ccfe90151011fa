"""The list of jobs over HTTP: what its address asks for, and what is done to several jobs at once."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.jobs.status import JobStatus
from app.core.metrics.store import put_metrics
from app.core.paths import DataFolder
from tests.jobs.steps import MakeJob


def _listed(client: TestClient, query: str = "") -> list[int]:
    page = client.get(f"/jobs{query}")
    assert page.status_code == 200
    return [int(each) for each in re.findall(r'<tr id="job-(\d+)"', page.text)]


def _end(database: Database, job: Job, status: JobStatus = JobStatus.COMPLETED, **summary: float) -> None:
    with database.write() as session:
        stored = get_job(session, job.key)
        stored.status, stored.summary, stored.attempts = status, summary, 1
        session.add(stored)


def test_order_filter_and_tag_stand_in_the_address(client: TestClient, database: Database, make_job: MakeJob) -> None:
    for name, loss in (("one", 3.0), ("two", 1.0), ("three", 2.0)):
        _end(database, make_job(name), train_loss=loss, eval_loss=-loss)
    make_job("waits")
    client.patch("/api/v1/jobs/1", json={"tags": ["night & day"]})
    assert _listed(client, "?sort=loss") == [2, 3, 1, 4]
    assert _listed(client, "?sort=-eval_loss") == [2, 3, 1, 4]
    assert _listed(client, "?sort=nonsense&status=nonsense") == [4, 3, 2, 1]
    assert _listed(client, "?status=queued") == [4]
    assert _listed(client, "?tag=night+%26+day") == [1]
    page = client.get("/jobs?sort=loss&q=o").text
    assert 'aria-sort="ascending"' in page
    assert 'href="/jobs?q=o&amp;sort=-loss"' in page
    assert 'href="/jobs?q=o&amp;tag=night+%26+day&amp;sort=loss"' in page


def test_a_training_shows_its_curve_and_one_that_runs_its_newest_loss(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = make_job("runs")
    _end(database, job, JobStatus.RUNNING)
    with database.write() as session:
        for step in (1, 2, 3):
            put_metrics(session, job.key, step, 0.0, {"loss": 4.5 - step})
    page = client.get("/jobs").text
    assert "<polyline" in page
    assert 'data-label="loss">1.5</td>' in page


def test_cancelling_several_shows_first_what_happens_and_then_does_it(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    _end(database, make_job("ended"))
    make_job("waits")
    shown = client.get("/jobs/selected?do=cancel&ids=1&ids=2").text
    assert "stays as it is: has already ended" in shown
    assert "Cancel 1 job<" in shown
    assert re.findall(r'name="ids" value="(\d+)"', shown) == ["2"]
    done = client.post("/jobs/selected/cancel", data={"ids": ["2"]}, follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, "/jobs")
    with database.read() as session:
        assert get_job(session, 2).status == JobStatus.CANCELLED


def test_deleting_files_of_several_says_what_it_frees_and_refuses_by_name(
    client: TestClient, database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    _end(database, make_job("ended"))
    make_job("waits")
    place = folder.job(1) / "adapter"
    place.mkdir(parents=True)
    (place / "weights").write_bytes(b"x" * 2048)
    with database.write() as session:
        session.add(Artifact(job_id=1, kind="adapter", path="adapter", bytes=2048, created_at=0))
    shown = client.get("/jobs/selected?do=delete&ids=1&ids=2").text
    assert "Delete the files of 1 job: frees 2.0 KiB" in shown
    assert "has not ended; cancel it first" in shown
    refused = client.post("/jobs/selected/delete", data={"ids": ["2", "1"]})
    assert refused.status_code == 409
    assert "Job 2 (waits) is queued" in refused.text
    assert not place.exists()


@pytest.mark.parametrize("query", ["", "&ids=x", "&ids=-1", "&ids=" + "9" * 30])
def test_nothing_selected_is_said(client: TestClient, query: str) -> None:
    answer = client.get(f"/jobs/selected?do=cancel{query}")
    assert answer.status_code == 422
    assert "No job is selected" in answer.text


def test_comparing_leads_to_an_address_that_can_be_shared(client: TestClient, make_job: MakeJob) -> None:
    make_job("a")
    make_job("b")
    answer = client.get("/jobs/selected?do=compare&ids=2&ids=1", follow_redirects=False)
    assert answer.headers["location"] == "/compare?ids=2%2C1"


def test_tags_and_notes_are_written_on_the_page_and_a_fault_keeps_what_was_typed(
    client: TestClient, make_job: MakeJob
) -> None:
    make_job("a")
    client.post("/jobs/1/about", data={"tags": "night, <b>", "notes": "it\r\nworks"})
    page = client.get("/jobs/1").text
    assert 'href="/jobs?tag=%3Cb%3E">&lt;b&gt;</a>' in page
    assert "it\nworks" in page
    refused = client.post("/jobs/1/about", data={"tags": "x" * 50, "notes": "typed"})
    assert refused.status_code == 422
    assert "is longer than 40 characters" in refused.text
    assert ">typed</textarea>" in refused.text
    assert client.get("/api/v1/jobs/1").json()["tags"] == ["night", "<b>"]


def test_the_api_keeps_what_it_is_not_given_and_finds_by_tag(client: TestClient, make_job: MakeJob) -> None:
    make_job("a")
    make_job("b")
    client.patch("/api/v1/jobs/1", json={"tags": ["x"], "notes": "kept"})
    assert client.patch("/api/v1/jobs/1", json={"tags": ["y"]}).json()["notes"] == "kept"
    assert [job["id"] for job in client.get("/api/v1/jobs?tag=y&sort=oldest").json()["jobs"]] == [1]
    refused = client.patch("/api/v1/jobs/1", json={"tags": ["x" * 41]})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "tags")
