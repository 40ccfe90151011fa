"""Buttons of a job's page and of the queue's: shown where they are possible, refused with what is possible else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.queue_state import get_queue, pause_queue
from app.core.jobs.status import JobStatus
from app.core.paths import DataFolder
from tests.saved_states import save_states

MakeJob = Callable[..., Job]


def _move(database: Database, job: Job, *to: JobStatus, **fields: Any) -> None:
    with database.write() as session:
        for status in to:
            queue.advance(session, queue.get_job(session, job.key), status, **fields)


def _actions(client: TestClient, job: Job) -> list[str]:
    """The last parts of the addresses that the page's forms post to."""
    text = client.get(f"/jobs/{job.id}").text
    found = re.findall(rf'action="/jobs/{job.id}/(\w+)"', text)
    return [each for each in found if each != "about"]  # tags and notes can be written in any state


def _stored(database: Database, job: Job) -> Job:
    with database.read() as session:
        return queue.get_job(session, job.key)


def test_a_page_offers_what_the_state_allows(
    client: TestClient, database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    job = make_job()
    assert _actions(client, job) == ["pause", "cancel"]
    _move(database, job, JobStatus.STARTING, JobStatus.RUNNING)
    assert _actions(client, job) == ["save", "sample", "pause", "cancel", "cancel"]
    assert client.post(f"/jobs/{job.id}/sample").status_code == 200
    assert _stored(database, job).sample_now_requested
    assert "its sample prompts are answered after the step in hand" in client.get(f"/jobs/{job.id}").text
    client.post(f"/jobs/{job.id}/pause")
    assert _actions(client, job) == ["resume", "cancel"]
    _move(database, job, JobStatus.FAILED)
    assert _actions(client, job) == ["retry"]
    save_states(folder, job, 5)
    assert _actions(client, job) == ["resume", "retry"]


def test_while_a_training_runs_again_its_result_says_of_which_step_it_is(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = make_job()
    _move(database, job, JobStatus.STARTING, JobStatus.COMPLETED)
    with database.write() as session:
        session.add(Artifact(job_id=job.key, kind="adapter", path="adapter", step=1478, bytes=1024, created_at=0.0))
    assert "Download adapter (1.0 KiB)" in client.get(f"/jobs/{job.id}").text
    client.post(f"/jobs/{job.id}/retry")
    assert "Download adapter of step 1,478 (1.0 KiB)" in client.get(f"/jobs/{job.id}").text


def test_a_completed_training_is_made_longer(
    client: TestClient, database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    job = make_job()
    _move(database, job, JobStatus.STARTING, JobStatus.COMPLETED)
    save_states(folder, job, 5)
    assert _actions(client, job) == ["extend", "retry"]
    for amount, unit in ((1.5, "steps"), (0, "steps"), (1, "epochs"), ("x", "steps")):
        assert client.post(f"/jobs/{job.id}/extend", data={"amount": amount, "unit": unit}).status_code == 422
    response = client.post(f"/jobs/{job.id}/extend", data={"amount": 3, "unit": "steps"}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, f"/jobs/{job.id}")
    assert (_stored(database, job).status, _stored(database, job).spec["max_steps"]) == (JobStatus.QUEUED, 8)


def test_what_is_not_possible_is_refused_on_a_page_that_says_what_is(client: TestClient, make_job: MakeJob) -> None:
    job = make_job()
    response = client.post(f"/jobs/{job.id}/save")
    assert response.status_code == 409
    assert f"Job {job.id} is queued; it cannot be saved now." in response.text
    assert "Possible now: pause, move, clone, cancel." in response.text


@pytest.mark.parametrize(
    ("referer", "back"),
    [
        ("http://127.0.0.1/jobs/1?a=1&b=2", 'href="/jobs/1?a=1&amp;b=2"'),
        ("http://127.0.0.1//evil.test/x", 'href="/evil.test/x"'),
        ("http://evil.test/jobs/1", None),
        ("javascript:alert(1)", None),
        ("", None),
    ],
)
def test_a_refusal_leads_back_to_the_page_whose_button_was_pressed(
    client: TestClient, make_job: MakeJob, referer: str, back: str | None
) -> None:
    text = client.post(f"/jobs/{make_job().id}/save", headers={"Referer": referer}).text
    assert ("Back to where you were" in text) == (back is not None)
    assert back is None or back in text


@pytest.mark.parametrize("partial", [False, True])
def test_the_queues_buttons_answer_with_its_region_or_lead_back(
    client: TestClient, database: Database, make_job: MakeJob, partial: bool
) -> None:
    first, second = make_job("first"), make_job("second")
    headers = {"HX-Request": "true"} if partial else {}

    def press(path: str, **data: Any) -> str:
        response = client.post(f"/queue/{path}", data=data, headers=headers, follow_redirects=False)
        assert response.status_code == (200 if partial else 303), response.text
        assert partial or response.headers["location"] == "/queue"
        return response.text

    told = press(f"{second.id}/move", to=1)
    assert ("Job 2 is at place 1." in told) is partial
    assert client.get("/queue").text.index("#2 second") < client.get("/queue").text.index("#1 first")
    press(f"{first.id}/pause")
    assert _stored(database, first).paused
    press(f"{first.id}/resume")
    press(f"{first.id}/cancel")
    assert _stored(database, first).status == JobStatus.CANCELLED
    press("pause")
    press("on-failure", on_failure="pause")
    with database.read() as session:
        assert (get_queue(session).paused, get_queue(session).on_failure) == (True, "pause")
    press("resume")
    with database.read() as session:
        assert not get_queue(session).paused


def test_an_unknown_action_of_the_queue_is_refused(client: TestClient, make_job: MakeJob) -> None:
    assert client.post(f"/queue/{make_job().id}/dance").status_code == 422


def test_a_failure_that_paused_the_queue_is_linked(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = make_job()
    with database.write() as session:
        pause_queue(session, {"kind": "failure", "message": "Job 1 (x) failed.", "job_id": 1})
    text = client.get("/jobs").text
    assert "The queue is paused: Job 1 (x) failed. No training" in text
    assert f'<a href="/jobs/{job.id}">Look at job #1</a>' in text


def test_why_a_job_is_paused_is_said(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = make_job()
    with database.write() as session:
        stored = queue.get_job(session, job.key)
        stored.paused, stored.pause_reason = True, {"kind": "disk_full", "message": "No room.", "advice": "Make some."}
        session.add(stored)
    assert "⚠ No room. Make some." in client.get(f"/jobs/{job.id}").text
    assert "No room." in client.get("/queue").text
