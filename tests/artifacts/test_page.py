"""The page of everything that jobs have saved."""

from __future__ import annotations

import re
from collections.abc import Callable

from fastapi.testclient import TestClient

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.jobs.status import JobStatus
from app.core.paths import DataFolder


def _save(database: Database, folder: DataFolder, job_id: int, kind: str, size: int, **fields: object) -> None:
    place = folder.job(job_id) / kind
    place.mkdir(parents=True)
    (place / "weights").write_bytes(b"x" * size)
    with database.write() as session:
        job = get_job(session, job_id)
        job.status = JobStatus.COMPLETED
        session.add(job)
        session.add(Artifact(job_id=job_id, kind=kind, path=kind, bytes=size, created_at=1.0, **fields))


def test_lists_sizes_with_their_sum_and_deletes_with_what_it_frees(
    client: TestClient, database: Database, folder: DataFolder, make_job: Callable[..., Job]
) -> None:
    make_job("mine")
    _save(database, folder, 1, "adapter", 1024)
    _save(database, folder, 1, "merged", 4096, verified=False)
    page = client.get("/artifacts").text
    assert "<strong>5.0 KiB</strong> in all" in page
    assert "frees 4.0 KiB" in page
    assert page.count(" download>") == 1  # what did not pass its verification is not offered
    assert client.get("/jobs/1/artifacts/adapter?id=1").status_code in (200, 409)
    assert re.findall(r'<tr id="artifact-(\d+)"', client.get("/artifacts?kind=adapter").text) == ["1"]
    assert re.findall(r'<tr id="artifact-(\d+)"', client.get("/artifacts?sort=size").text) == ["2", "1"]
    gone = client.post("/jobs/1/artifacts/2/delete", data={"back": "artifacts"}, follow_redirects=False)
    assert gone.headers["location"] == "/artifacts"
    assert "<strong>1.0 KiB</strong> in all" in client.get("/artifacts").text


def test_without_any_it_says_where_they_come_from(client: TestClient) -> None:
    assert "Nothing has been saved yet." in client.get("/artifacts").text
    assert "Nothing has been saved yet." in client.get("/artifacts?kind=nonsense&sort=x&page=7").text
