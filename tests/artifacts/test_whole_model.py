"""What a job that trained every weight offers: its model to download and to ask; nothing to merge."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.artifacts.store import META, record
from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.paths import DataFolder
from worker.payload import build_payload

CERTIFICATE = {"passed": True, "warning": None, "dtype": "bfloat16", "base_dtype": "bfloat16"}


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job("whole", method="full")


@pytest.fixture
def save(database: Database, folder: DataFolder, job: Job) -> Callable[..., Path]:
    """Announce a saved folder of the job, as its child does."""

    def save(kind: str = "model", path: str = "model", **data: Any) -> Path:
        target = folder.job(job.key) / path
        target.mkdir(parents=True)
        (target / META).write_text(json.dumps({"files": []}))
        with database.write() as session:
            record(session, folder, job.key, 3, {"kind": kind, "path": path, **data})
        return target

    return save


def test_merge_is_refused_at_once_and_says_what_to_download(client: TestClient, job: Job) -> None:
    response = client.post(f"/api/v1/jobs/{job.id}/merge", json={"dtype": "bf16"})
    assert response.status_code == 409
    error = response.json()["error"]
    assert error["message"] == f"Job {job.id} trains every weight: there is no adapter to merge."
    assert f"loradeck artifacts download {job.id} model" in error["advice"]


def test_adapter_of_such_a_job_names_what_there_is(client: TestClient, job: Job, save: Callable[..., Path]) -> None:
    save(certificate=CERTIFICATE)
    save("checkpoint", "checkpoints/step-3")
    error = client.get(f"/api/v1/jobs/{job.id}/artifacts/adapter").json()["error"]
    assert (error["message"], error["advice"]) == (
        f"Job {job.id} has no adapter.",
        "It has: checkpoint at step 3, model.",
    )
    assert client.get(f"/api/v1/jobs/{job.id}/artifacts/model").headers["content-type"] == "application/zip"


def test_answers_come_from_the_trained_folder_itself(
    client: TestClient, database: Database, folder: DataFolder, job: Job, save: Callable[..., Path]
) -> None:
    body = {"prompt": "Hello", "max_new_tokens": 9}
    error = client.post(f"/api/v1/jobs/{job.id}/generate", json=body).json()["error"]
    assert error["message"] == f"Job {job.id} (queued) has no model."
    trained = save(certificate=CERTIFICATE)
    paths = []
    for base in (False, True):
        answer = client.post(f"/api/v1/jobs/{job.id}/generate", json={**body, "base": base}).json()
        with database.read() as session:
            payload = build_payload(session, folder, folder.home, get_job(session, answer["id"]))
        assert (payload["adapter_path"], payload["base_model"]["name"]) == (None, "tiny")
        paths.append(payload["base_model"]["path"])
    assert paths[0] == str(trained)
    assert paths[1] not in (str(trained), "")


@pytest.mark.parametrize(("dtype", "says_why"), [("bfloat16", False), ("float32", True)])
def test_page_offers_the_model_and_no_merge(
    client: TestClient, job: Job, save: Callable[..., Path], dtype: str, says_why: bool
) -> None:
    save(certificate={**CERTIFICATE, "dtype": dtype})
    page = client.get(f"/jobs/{job.id}").text
    assert f'/jobs/{job.id}/artifacts/model" download>Download model of step 3 (' in page
    assert f"within the rounding of {dtype}" in page
    assert ("It is not bfloat16 as its base is" in page) is says_why
    assert "Merge into the base model" not in page
    assert "Download adapter" not in page
