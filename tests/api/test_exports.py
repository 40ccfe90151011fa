"""Exports, adapters from elsewhere and deleting over the API: queued, or refused with the reason."""

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
from app.core.jobs.queue import enqueue, request_cancel
from app.core.jobs.status import JobKind
from app.core.paths import DataFolder
from tests.api.conftest import Shown

CONFIG = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64}
TOKENIZER = {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}}
Merged = Callable[..., Job]


@pytest.fixture
def merged(database: Database, folder: DataFolder, make_job: Callable[..., Job]) -> Merged:
    """A training job with a merged model of this config."""

    def merged(config: dict[str, Any] = CONFIG, *, passed: bool = True) -> Job:
        source = make_job()
        with database.write() as session:
            merge = enqueue(session, Job(name="m", kind=JobKind.MERGE, created_at=0.0, source_job_id=source.id))
            place = folder.job(merge.key) / "merged"
            place.mkdir(parents=True)
            for name, content in (("config.json", config), ("tokenizer.json", TOKENIZER)):
                (place / name).write_text(json.dumps(content))
            (place / META).write_text(json.dumps({"files": []}))
            data = {"kind": "merged", "path": "merged", "certificate": {"passed": passed}}
            record(session, folder, merge.key, None, data)
            request_cancel(session, merge)
            return request_cancel(session, source)

    return merged


def test_an_export_is_queued_with_what_was_asked(client: TestClient, merged: Merged) -> None:
    source = merged()
    answer = client.post(f"/api/v1/jobs/{source.id}/export", json={"quantization": "f16"})
    assert answer.status_code == 201
    job = answer.json()
    assert (job["kind"], job["status"], job["spec"]["quantization"]) == ("export", "queued", "f16")


def test_what_cannot_be_exported_is_refused_with_the_reason(
    client: TestClient, merged: Merged, refused: Shown, make_job: Callable[..., Job]
) -> None:
    path = "/api/v1/jobs/{}/export"
    wrong = client.post(path.format(merged().id), json={"format": "onnx", "quantization": "q2"})
    assert {fault["field"] for fault in refused(wrong, 422)["faults"]} == {"format", "quantization"}
    gpt2 = client.post(path.format(merged({"architectures": ["GPT2LMHeadModel"]}).id), json={})
    assert "GPT2LMHeadModel is not one of" in refused(gpt2, 422)["message"]
    error = refused(client.post(path.format(make_job().id), json={}), 409, "conflict")
    assert "loradeck merge" in error["advice"]
    refused(client.post(path.format(merged(passed=False).id), json={}), 409, "conflict")
    jobs = client.get("/api/v1/jobs", params={"kind": "export"}).json()
    assert jobs["total"] == 0


def test_an_adapter_is_received_and_its_import_queued(client: TestClient, folder: DataFolder, refused: Shown) -> None:
    send = {"files": {"file": ("a.zip", b"PK content")}}
    answer = client.post("/api/v1/adapters", **send, data={"base_model": "tiny", "name": "../../mine"})
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert (job["kind"], job["name"], job["status"]) == ("adapter", "../../mine", "queued")
    (stored,) = (folder.job(job["id"]) / "uploaded").iterdir()
    assert stored.read_bytes() == b"PK content"
    unknown = client.post("/api/v1/adapters", **send, data={"base_model": "nobody"})
    assert refused(unknown, 422)["field"] == "base_model"
    empty = client.post("/api/v1/adapters", files={"file": ("a.zip", b"")}, data={"base_model": "tiny"})
    assert refused(empty, 422)["field"] == "file"
    assert list(folder.uploads.iterdir()) == []


def test_deleting_says_what_it_freed(client: TestClient, merged: Merged, refused: Shown) -> None:
    source = merged()
    path = f"/api/v1/jobs/{source.id}/artifacts"
    assert len(client.get(path).json()) == 1
    refused(client.delete(f"{path}/adapter"), 404)
    assert client.delete(f"{path}/merged").json()["freed_bytes"] > 100
    assert client.get(path).json() == []
    assert client.delete(path).json() == {"freed_bytes": 0}


@pytest.mark.parametrize("page", ["/jobs/{}"])
def test_the_page_offers_export_and_asks_before_it_deletes(client: TestClient, merged: Merged, page: str) -> None:
    source = merged()
    text = client.get(page.format(source.id)).text
    assert f"/jobs/{source.id}/export" in text
    assert "Delete everything: frees" in text
    assert "vllm serve ./loradeck-job" in text
    assert client.post(f"/jobs/{source.id}/artifacts/delete", headers={"Origin": "http://127.0.0.1"}).status_code == 200
    assert client.get(f"/api/v1/jobs/{source.id}/artifacts").json() == []


def test_the_payload_of_a_child_holds_only_paths_and_words(
    database: Database, folder: DataFolder, client: TestClient, merged: Merged
) -> None:
    from worker.payload import build_payload

    source = merged()
    job_id = client.post(f"/api/v1/jobs/{source.id}/export", json={}).json()["id"]
    with database.write() as session:
        job = session.get_one(Job, job_id)
        payload = build_payload(session, folder, Path("/nowhere"), job)
    assert payload["file_stem"] == "tiny-on-small"
    assert Path(payload["model_path"]).name == "merged"
    json.dumps(payload)
