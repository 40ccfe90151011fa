"""Pause, resume, save, retry, extend; and the queue's own settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from app.core.paths import DataFolder
from tests.saved_states import save_states

MakeJob = Callable[..., Job]
Shown = Callable[..., dict[str, Any]]


def move(database: Database, job: Job, *to: JobStatus) -> None:
    with database.write() as session:
        for status in to:
            queue.advance(session, queue.get_job(session, job.key), status)


def ask(client: TestClient, job: Job, action: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    response = client.post(f"/api/v1/jobs/{job.id}/{action}", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_waiting_job_is_held_and_let_go(client: TestClient, make_job: MakeJob) -> None:
    job = make_job()
    held = ask(client, job, "pause")
    assert (held["status"], held["paused"]) == ("queued", True)
    assert ask(client, job, "resume")["paused"] is False


def test_a_running_training_is_asked_to_save_and_to_pause(
    client: TestClient, database: Database, make_job: MakeJob, refused: Shown
) -> None:
    job = make_job()
    move(database, job, JobStatus.STARTING, JobStatus.RUNNING)
    assert ask(client, job, "save")["save_now_requested"] is True
    assert ask(client, job, "sample")["sample_now_requested"] is True
    paused = ask(client, job, "pause")
    assert (paused["status"], paused["paused"]) == ("running", True)
    error = refused(client.post(f"/api/v1/jobs/{job.id}/save"), 409, "conflict")
    assert error["message"] == f"Job {job.id} is pausing; it cannot be saved now."
    assert (error["state"], error["possible"]) == ("pausing", ["resume", "clone", "cancel"])


def test_a_failed_training_goes_on_or_starts_again(
    client: TestClient, database: Database, folder: DataFolder, make_job: MakeJob, refused: Shown
) -> None:
    job = make_job()
    move(database, job, JobStatus.STARTING, JobStatus.FAILED)
    error = refused(client.post(f"/api/v1/jobs/{job.id}/resume"), 409, "conflict")
    assert (error["state"], error["possible"]) == ("failed", ["retry", "clone"])
    save_states(folder, job, 3, 6)
    states = client.get(f"/api/v1/jobs/{job.id}/states").json()
    assert states == [{"step": step, "bytes": 4, "saved_at": 5.0} for step in (3, 6)]
    resumed = ask(client, job, "resume")
    assert (resumed["status"], resumed["step"], resumed["id"]) == ("queued", 6, job.id)
    move(database, job, JobStatus.STARTING, JobStatus.FAILED)
    assert ask(client, job, "retry", {"from_step": 3})["step"] == 3
    move(database, job, JobStatus.STARTING, JobStatus.FAILED)
    assert refused(client.post(f"/api/v1/jobs/{job.id}/retry", json={"from_step": 4}), 422)["field"] == "from_step"
    assert ask(client, job, "retry")["step"] == 0


def test_a_completed_training_is_made_longer(
    client: TestClient, database: Database, folder: DataFolder, make_job: MakeJob, refused: Shown
) -> None:
    job = make_job()
    error = refused(client.post(f"/api/v1/jobs/{job.id}/extend", json={"steps": 4}), 409, "conflict")
    assert error["possible"] == ["pause", "move", "clone", "cancel"]
    move(database, job, JobStatus.STARTING, JobStatus.COMPLETED)
    save_states(folder, job, 8)
    refused(client.post(f"/api/v1/jobs/{job.id}/extend", json={}), 422)
    extended = ask(client, job, "extend", {"steps": 4})
    assert (extended["status"], extended["spec"]["max_steps"], extended["summary"]) == (
        "queued", 12, {"extended_at": [8]},
    )  # fmt: skip


def test_the_queue_is_paused_set_and_resumed(client: TestClient, refused: Shown) -> None:
    as_at_first = {"paused": False, "pause_reason": None, "on_failure": "continue"}
    assert client.get("/api/v1/queue").json() == as_at_first
    assert client.post("/api/v1/queue/pause").json() == {**as_at_first, "paused": True}
    changed = client.patch("/api/v1/queue", json={"on_failure": "pause"}).json()
    assert changed == {"paused": True, "pause_reason": None, "on_failure": "pause"}
    assert client.post("/api/v1/queue/resume").json()["paused"] is False
    refused(client.patch("/api/v1/queue", json={"on_failure": "dance"}), 422)


@pytest.mark.parametrize("action", ["pause", "resume", "save", "retry", "states"])
def test_an_unknown_job_is_not_found(client: TestClient, refused: Shown, action: str) -> None:
    send = client.get if action == "states" else client.post
    refused(send(f"/api/v1/jobs/99/{action}"), 404, "not_found")
