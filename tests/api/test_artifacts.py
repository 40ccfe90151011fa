"""Artifacts over the API: a zip whose length is known, whole or refused."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.artifacts.store import META, record
from app.core.database import Database
from app.core.jobs.models import Job
from app.core.paths import DataFolder
from tests.api.conftest import Shown

CONTENT = {"adapter_model.safetensors": b"\x01\x02" * 5000, "adapter_config.json": b"{}", "nested/README.md": b"# x\n"}
Produce = Callable[..., Path]


@pytest.fixture
def job(make_job: Callable[..., Job]) -> Job:
    return make_job()


@pytest.fixture
def produce(database: Database, folder: DataFolder, job: Job) -> Produce:
    """Write an artifact's folder and register it; the folder."""

    def produce(kind: str = "adapter", path: str = "adapter", step: int | None = None, **data: Any) -> Path:
        target = folder.job(job.key) / path
        files = []
        for name, content in CONTENT.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            files.append({"path": name, "bytes": len(content), "sha256": digest})
        (target / META).write_text(json.dumps({"files": files, "kind": kind}))
        with database.write() as session:
            record(session, folder, job.key, step, {"kind": kind, "path": path, **data})
        return target

    return produce


def test_artifacts_are_listed_with_their_hashes(client: TestClient, job: Job, produce: Produce) -> None:
    assert client.get(f"/api/v1/jobs/{job.id}/artifacts").json() == []
    target = produce(step=9)
    (artifact,) = client.get(f"/api/v1/jobs/{job.id}/artifacts").json()
    assert (artifact["kind"], artifact["step"], artifact["verified"]) == ("adapter", 9, None)
    assert artifact["bytes"] == sum(file["bytes"] for file in artifact["files"])
    assert {file["path"]: (file["bytes"], file["sha256"]) for file in artifact["files"]} == {
        name: (len(content), hashlib.sha256(content).hexdigest())
        for name, content in {**CONTENT, META: (target / META).read_bytes()}.items()
    }


def test_a_download_is_a_whole_zip_of_known_length(client: TestClient, job: Job, produce: Produce) -> None:
    produce()
    response = client.get(f"/api/v1/jobs/{job.id}/artifacts/adapter")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/zip"
    name = f"loradeck-job-{job.id}-adapter"
    assert response.headers["content-disposition"] == f'attachment; filename="{name}.zip"'
    assert int(response.headers["content-length"]) == len(response.content)
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(f"{name}/{path}" for path in [*CONTENT, META, "SHA256SUMS"])
        for path, content in CONTENT.items():
            assert archive.read(f"{name}/{path}") == content
        assert json.loads(archive.read(f"{name}/{META}"))["kind"] == "adapter"
        (artifact,) = client.get(f"/api/v1/jobs/{job.id}/artifacts").json()
        sizes = {file.filename: file.file_size for file in archive.infolist()}
        assert artifact["bytes"] == sum(sizes.values()) - sizes[f"{name}/SHA256SUMS"]


def test_the_sums_in_the_zip_are_checked_by_sha256sum(
    client: TestClient, job: Job, produce: Produce, tmp_path: Path
) -> None:
    produce()
    response = client.get(f"/api/v1/jobs/{job.id}/artifacts/adapter")
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        archive.extractall(tmp_path)
    place = tmp_path / f"loradeck-job-{job.id}-adapter"
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=place, check=True, capture_output=True)
    (place / "nested/README.md").write_text("another")
    assert subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=place, capture_output=True).returncode == 1


def test_a_checkpoint_is_asked_for_by_step(client: TestClient, job: Job, produce: Produce, refused: Shown) -> None:
    for step in (10, 20):
        produce("checkpoint", f"checkpoints/step-{step}", step)
    path = f"/api/v1/jobs/{job.id}/artifacts/checkpoint"
    assert f'filename="loradeck-job-{job.id}-checkpoint-step-20.zip"' in client.get(path).headers["content-disposition"]
    assert "step-10.zip" in client.get(path, params={"step": 10}).headers["content-disposition"]
    refused(client.get(path, params={"step": 11}), 404, "not_found")
    refused(client.get(path, params={"step": "x"}), 422)
    refused(client.get(path, params={"step": 10**30}), 404, "not_found")


def test_what_is_not_there_is_not_found(client: TestClient, job: Job, produce: Produce, refused: Shown) -> None:
    produce()
    for kind in ("merged", "%2e%2e", "..%2fadapter", "%00", "adapter%00", "adapter.zip"):
        refused(client.get(f"/api/v1/jobs/{job.id}/artifacts/{kind}"), 404, "not_found")


def test_what_is_there_is_named(client: TestClient, job: Job, produce: Produce, refused: Shown) -> None:
    produce()
    assert refused(client.get(f"/api/v1/jobs/{job.id}/artifacts/merged"), 404)["advice"] == "It has: adapter."


def test_a_merged_model_that_failed_its_verification_is_not_handed_out(
    client: TestClient, job: Job, produce: Produce, refused: Shown
) -> None:
    path = f"/api/v1/jobs/{job.id}/artifacts/merged"
    produce("merged", "merged", certificate={"passed": False})
    error = refused(client.get(path), 409, "conflict")
    assert "did not pass its verification" in error["message"]
    produce("merged", "merged", certificate={"passed": True})
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("name", [*CONTENT, META])
def test_a_download_with_a_missing_file_is_refused(
    client: TestClient, job: Job, produce: Produce, refused: Shown, name: str
) -> None:
    (produce() / name).unlink()
    error = refused(client.get(f"/api/v1/jobs/{job.id}/artifacts/adapter"), 409, "conflict")
    assert name in error["message"]


def test_a_link_in_place_of_a_file_is_refused(
    client: TestClient, job: Job, produce: Produce, refused: Shown, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    target = produce()
    (target / "adapter_config.json").unlink()
    (target / "adapter_config.json").symlink_to(secret)
    refused(client.get(f"/api/v1/jobs/{job.id}/artifacts/adapter"), 409, "conflict")
