"""Jobs over the API: submit, look, cancel, merge, ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.queries import queued_jobs
from app.core.jobs.status import JobStatus
from app.core.metrics.store import put_metrics
from app.core.models.models import BaseModel
from app.core.paths import DataFolder
from tests.api.conftest import Shown
from tests.receipts import write_receipt

SPEC = {"base_model": "tiny", "dataset": "small"}
PROMISED = {"id", "name", "kind", "status", "phase", "step", "max_steps", "eta_seconds", "error", "spec", "summary",
            "attempts"}  # fmt: skip


def _submit(client: TestClient, **spec: Any) -> dict[str, Any]:
    response = client.post("/api/v1/jobs", json={"spec": {**SPEC, **spec}})
    assert response.status_code == 201, response.text
    return response.json()


def _move(database: Database, job_id: int, *to: JobStatus) -> None:
    with database.write() as session:
        job = queue.get_job(session, job_id)
        for status in to:
            job = queue.advance(session, job, status)


def _add_adapter(session: Session, job_id: int) -> None:
    session.add(Artifact(job_id=job_id, kind="adapter", path="adapter", bytes=1, created_at=0))


def test_a_submitted_job_is_queued_and_shown(client: TestClient) -> None:
    job = _submit(client, r=4)
    assert set(job) >= PROMISED
    assert (job["status"], job["kind"], job["name"], job["step"], job["attempts"]) == (
        "queued", "train", "tiny on small", 0, 0,
    )  # fmt: skip
    assert job["spec"]["r"] == 4
    assert client.get(f"/api/v1/jobs/{job['id']}").json() == job


def test_yaml_and_values_are_the_same_job(client: TestClient) -> None:
    text = "base_model: tiny\ndataset: small\nlearning_rate: 1e-3\n"
    job = client.post("/api/v1/jobs", json={"yaml": text, "name": "mine"}).json()
    assert job["name"] == "mine"
    assert job["spec"] == _submit(client, learning_rate=1e-3)["spec"]


@pytest.mark.parametrize("body", [{}, {"spec": SPEC, "yaml": "base_model: tiny"}, {"name": "x"}])
def test_a_spec_comes_in_one_way(client: TestClient, refused: Shown, body: dict[str, Any]) -> None:
    assert refused(client.post("/api/v1/jobs", json=body), 422)["field"] == "spec"


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"r": 0}, ["r"]),
        ({"learning_rate": 0}, ["learning_rate"]),
        ({"learning_rate": -1, "r": -5}, ["learning_rate", "r"]),
        ({"lr": 1}, ["lr"]),
        ({"base_model": "gone"}, ["base_model"]),
        ({"dataset": "gone"}, ["dataset"]),
        ({"base_model": "gone", "dataset": "gone"}, ["base_model", "dataset"]),
        ({"target_modules": ["query"]}, ["target_modules"]),
        ({"base_model": "9" * 30}, ["base_model"]),
        ({"base_model": "\0"}, ["base_model"]),
    ],
)
def test_an_impossible_spec_queues_nothing_and_names_each_field(
    client: TestClient, refused: Shown, spec: dict[str, Any], fields: list[str]
) -> None:
    error = refused(client.post("/api/v1/jobs", json={"spec": {**SPEC, **spec}}), 422, "invalid_input")
    assert sorted(fault["field"] for fault in error["faults"]) == fields
    assert error["field"] == error["faults"][0]["field"]
    assert client.get("/api/v1/jobs").json()["total"] == 0


@pytest.mark.parametrize("text", ["- a", "r: [", "[" * 5000, '"\\ud800": 1', "a: &a [*a]"])
def test_hostile_yaml_is_refused(client: TestClient, refused: Shown, text: str) -> None:
    refused(client.post("/api/v1/jobs", json={"yaml": text}), 422, "invalid_input")


def test_an_unknown_target_module_shows_the_models_own(client: TestClient, refused: Shown) -> None:
    error = refused(client.post("/api/v1/jobs", json={"spec": {**SPEC, "target_modules": ["query"]}}), 422)
    assert "tiny has: down_proj, gate_proj" in error["message"]


def test_jobs_are_listed_in_pages_and_by_filter(client: TestClient) -> None:
    for _ in range(5):
        _submit(client)
    client.post("/api/v1/jobs/2/cancel")
    page = client.get("/api/v1/jobs", params={"size": 2, "page": 2}).json()
    assert ([job["id"] for job in page.pop("jobs")], page) == ([3, 2], {"total": 5, "page": 2, "pages": 3})
    assert [job["id"] for job in client.get("/api/v1/jobs?status=cancelled").json()["jobs"]] == [2]
    assert client.get("/api/v1/jobs?search=no+such").json()["total"] == 0
    assert client.get("/api/v1/jobs?kind=merge&kind=import").json()["total"] == 0


def test_a_waiting_job_is_cancelled_at_once_and_only_once(client: TestClient, refused: Shown) -> None:
    job = _submit(client)
    cancelled = client.post(f"/api/v1/jobs/{job['id']}/cancel").json()
    assert (cancelled["status"], cancelled["cancel_requested"]) == ("cancelled", True)
    error = refused(client.post(f"/api/v1/jobs/{job['id']}/cancel"), 409, "conflict")
    assert error["message"] == f"Job {job['id']} has already ended (cancelled)."
    assert (error["state"], error["possible"]) == ("cancelled", ["retry", "clone"])


@pytest.mark.parametrize("save", [False, True])
def test_a_running_job_is_asked_to_stop(client: TestClient, database: Database, save: bool) -> None:
    job = _submit(client)
    _move(database, job["id"], JobStatus.STARTING, JobStatus.RUNNING)
    asked = client.post(f"/api/v1/jobs/{job['id']}/cancel", json={"save": save}).json()
    assert (asked["status"], asked["cancel_requested"]) == ("running", not save)


def test_a_clone_is_a_new_job_of_the_same_spec(client: TestClient, database: Database) -> None:
    job = _submit(client, r=4)
    _move(database, job["id"], JobStatus.STARTING, JobStatus.FAILED)
    response = client.post(f"/api/v1/jobs/{job['id']}/clone")
    assert response.status_code == 201
    clone = response.json()
    assert (clone["status"], clone["attempts"], clone["error"]) == ("queued", 0, None)
    assert (clone["spec"], clone["name"]) == (job["spec"], job["name"])
    assert clone["id"] > job["id"]
    named = client.post(f"/api/v1/jobs/{job['id']}/clone", json={"name": "again"}).json()
    assert named["name"] == "again"


def test_a_clone_is_checked_anew(client: TestClient, database: Database, refused: Shown) -> None:
    job = _submit(client)
    with database.write() as session:
        stored = session.get_one(Job, job["id"])
        stored.spec = {**stored.spec, "dataset": "gone since"}
    error = refused(client.post(f"/api/v1/jobs/{job['id']}/clone"), 422, "invalid_input")
    assert error["field"] == "dataset"
    assert client.get("/api/v1/jobs").json()["total"] == 1


def test_only_a_training_is_cloned(client: TestClient, refused: Shown) -> None:
    job = _submit(client)
    answer = client.post(f"/api/v1/jobs/{job['id']}/generate", json={"prompt": "x", "base": True}).json()
    error = refused(client.post(f"/api/v1/jobs/{answer['id']}/clone"), 409, "conflict")
    assert "(playground) is queued; it cannot be cloned: only a training job can be" in error["message"]
    assert error["possible"] == ["pause", "move", "cancel"]


def test_a_completed_training_is_run_again_from_its_receipt(
    client: TestClient, database: Database, folder: DataFolder, refused: Shown
) -> None:
    job = _submit(client, r=4)
    assert "left no receipt" in refused(client.post(f"/api/v1/jobs/{job['id']}/rerun"), 409, "conflict")["message"]
    refused(client.get(f"/api/v1/jobs/{job['id']}/receipt"), 409, "conflict")
    _move(database, job["id"], JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED)
    with database.read() as session:
        stored = queue.get_job(session, job["id"])
        model, dataset = session.get_one(BaseModel, stored.base_model_id), session.get_one(Dataset, stored.dataset_id)
        write_receipt(folder, stored, model, dataset)
    response = client.post(f"/api/v1/jobs/{job['id']}/rerun", json={"name": "again"})
    assert response.status_code == 201
    again = response.json()
    assert (again["name"], again["spec"], again["source_job_id"]) == ("again", job["spec"], job["id"])
    assert client.get(f"/api/v1/jobs/{job['id']}/receipt").json()["spec"] == job["spec"]
    with database.write() as session:
        session.get_one(Dataset, stored.dataset_id).rows_sha256 = "0" * 64
    assert "holds other rows" in refused(client.post(f"/api/v1/jobs/{job['id']}/rerun"), 409, "conflict")["message"]


def test_a_waiting_job_is_moved(client: TestClient, database: Database, refused: Shown) -> None:
    jobs = [_submit(client)["id"] for _ in range(3)]
    moved = client.post(f"/api/v1/jobs/{jobs[2]}/move", json={"to": 1})
    assert (moved.status_code, moved.json()["status"]) == (200, "queued")
    with database.read() as session:
        assert [job.id for job in queued_jobs(session)] == [jobs[2], *jobs[:2]]
    for to in (0, "x", None):
        assert refused(client.post(f"/api/v1/jobs/{jobs[0]}/move", json={"to": to}), 422)["field"] == "to"
    client.post(f"/api/v1/jobs/{jobs[0]}/cancel")
    refused(client.post(f"/api/v1/jobs/{jobs[0]}/move", json={"to": 1}), 409, "conflict")


def test_an_unknown_field_of_a_cancel_is_refused(client: TestClient, refused: Shown) -> None:
    job = _submit(client)
    assert refused(client.post(f"/api/v1/jobs/{job['id']}/cancel", json={"svae": True}), 422)["field"] == "svae"
    assert client.get(f"/api/v1/jobs/{job['id']}").json()["status"] == "queued"


def test_metrics_are_series_by_step(client: TestClient, database: Database) -> None:
    job = _submit(client)
    with database.write() as session:
        for step in (2, 1):
            put_metrics(session, job["id"], step, 0.0, {"loss": step / 2, "grad_norm": None})
    path = f"/api/v1/jobs/{job['id']}/metrics"
    assert client.get(path).json() == {"series": {"loss": [[1, 0.5], [2, 1.0]], "grad_norm": [[1, None], [2, None]]}}
    assert client.get(path, params={"name": "loss"}).json() == {"series": {"loss": [[1, 0.5], [2, 1.0]]}}
    assert client.get(path, params={"name": "none"}).json() == {"series": {}}


def test_the_log_is_text_from_any_offset(client: TestClient, folder: DataFolder) -> None:
    job = _submit(client)
    path = f"/api/v1/jobs/{job['id']}/logs"
    assert client.get(path).text == ""
    log = folder.job(job["id"]) / "train.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes("ä<b>\n".encode() + b"\xff")
    response = client.get(path)
    assert response.content == log.read_bytes()
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    part = client.get(path, params={"offset": 2})
    assert (part.status_code, part.content) == (200, b"<b>\n\xff")
    behind = client.get(path, params={"offset": 7})
    assert (behind.status_code, behind.content) == (200, b"")


def test_merge_needs_an_adapter(client: TestClient, database: Database, refused: Shown) -> None:
    job = _submit(client)
    path = f"/api/v1/jobs/{job['id']}/merge"
    error = refused(client.post(path, json={}), 409, "conflict")
    assert error["advice"] == "Wait until it is completed."
    with database.write() as session:
        _add_adapter(session, job["id"])
    assert refused(client.post(path, json={"dtype": "int3"}), 422)["field"] == "dtype"
    response = client.post(path, json={"dtype": "fp32"})
    assert response.status_code == 201
    merge = response.json()
    assert (merge["kind"], merge["source_job_id"], merge["spec"]["dtype"]) == ("merge", job["id"], "fp32")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": "x", "max_new_tokens": 0}, "max_new_tokens"),
        ({"prompt": "x", "temprature": 1}, "temprature"),
        ({"prompt": "x", "temperature": -1}, "temperature"),
        ({"prompt": "x", "top_p": 0}, "top_p"),
        ({"prompt": "x", "seed": 2**32}, "seed"),
        ({"prompt": "x" * 200_001}, "prompt"),
        ({"prompt": "x", "system": "x" * 200_001}, "system"),
    ],
)
def test_a_bad_question_names_the_field(client: TestClient, refused: Shown, body: dict[str, Any], field: str) -> None:
    job = _submit(client)
    assert refused(client.post(f"/api/v1/jobs/{job['id']}/generate", json=body), 422)["field"] == field


def test_a_question_says_how_to_answer_it(client: TestClient) -> None:
    chosen = {"max_new_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 7, "system": "Be brief."}
    path = f"/api/v1/jobs/{_submit(client)['id']}/generate"
    spec = client.post(path, json={"prompt": "x", "base": True, **chosen}).json()["spec"]
    assert {name: spec[name] for name in chosen} == chosen


def test_an_answer_is_a_job_that_is_not_listed(client: TestClient, refused: Shown) -> None:
    job = _submit(client)
    path = f"/api/v1/jobs/{job['id']}/generate"
    refused(client.post(path, json={"prompt": "x"}), 409, "conflict")
    answer = client.post(path, json={"prompt": "x", "base": True}).json()
    assert answer["kind"] == "playground"
    assert client.get(f"/api/v1/jobs/{answer['id']}").json() == answer
    assert [each["id"] for each in client.get("/api/v1/jobs").json()["jobs"]] == [job["id"]]
    assert [each["id"] for each in client.get("/api/v1/jobs?kind=playground").json()["jobs"]] == [answer["id"]]


def test_a_failed_job_shows_its_error(client: TestClient, database: Database, make_job: Callable[..., Job]) -> None:
    job = make_job()
    error = {"kind": "out_of_memory", "message": "no room", "advice": "a smaller batch"}
    with database.write() as session:
        started = queue.advance(session, job, JobStatus.STARTING)
        queue.advance(session, started, JobStatus.FAILED, error=error)
    shown = client.get(f"/api/v1/jobs/{job.id}").json()
    assert (shown["status"], shown["error"], shown["eta_seconds"]) == ("failed", error, None)
