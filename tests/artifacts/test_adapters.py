"""The page of adapters from elsewhere: a zip or a folder is queued, everything else is said beside its field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.jobs.status import JobStatus
from app.core.paths import DataFolder

SAME_SITE = {"Sec-Fetch-Site": "same-origin", "HX-Request": "true"}
ZIP = ("mine.zip", b"PK content")


def _send(client: TestClient, file: tuple[str, bytes] | None = None, **fields: str) -> httpx.Response:
    files = {"file": file if file is not None else ("", b"")}
    return client.post("/adapters", data={"base_model": "tiny", **fields}, files=files, headers=SAME_SITE)


def _job(database: Database, response: httpx.Response) -> Job:
    assert response.status_code == 200, response.text
    with database.read() as session:
        return get_job(session, int(response.headers["HX-Redirect"].rpartition("/")[2]))


def test_a_zip_is_stored_and_queued(client: TestClient, database: Database, folder: DataFolder) -> None:
    job = _job(database, _send(client, ZIP, name="mine"))
    assert (job.kind, job.name, "path" in job.spec) == ("adapter", "mine", False)
    (stored,) = (folder.job(job.key) / "uploaded").iterdir()
    assert stored.read_bytes() == b"PK content"


def test_a_folder_under_an_allowed_root_is_queued_by_its_path(
    client: TestClient, database: Database, folder: DataFolder, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    job = _job(database, _send(client, path=f" {tmp_path / 'mine'} "))
    assert job.spec["path"] == str(tmp_path / "mine")
    over_api = client.post("/api/v1/adapters", data={"base_model": "tiny", "path": str(tmp_path / "mine")})
    assert over_api.json()["spec"]["path"] == str(tmp_path / "mine")
    assert not (folder.job(job.key) / "uploaded").exists()


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({}, "file", "one of the two"),
        ({"file": ZIP, "path": "/x"}, "file", "one of the two"),
        ({"file": ("mine.zip", b"")}, "file", "The file is empty."),
        ({"file": ZIP, "base_model": "nobody"}, "base_model", "unknown base model"),
        ({"path": "/etc"}, "path", "is not under an allowed folder"),
        ({"path": "{tmp}/../../etc"}, "path", "is not under an allowed folder"),
        ({"path": "{tmp}/link"}, "path", "is not under an allowed folder"),
        ({"path": "{tmp}/nothing"}, "path", "does not exist"),
        ({"path": "nothing/here"}, "path", "does not exist"),
        ({"path": "a\0b"}, "path", "not a usable path"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field_with_what_was_typed_kept(
    client: TestClient, folder: DataFolder, tmp_path: Path, fields: dict[str, Any], field: str, said: str
) -> None:
    (tmp_path / "link").symlink_to("/etc")
    filled = {name: v.replace("{tmp}", str(tmp_path)) if isinstance(v, str) else v for name, v in fields.items()}
    response = _send(client, **filled, name="kept name")
    assert response.status_code == 422
    assert f'id="errors-{field}"' in response.text
    assert said in response.text
    assert 'value="kept name"' in response.text
    assert list(folder.uploads.iterdir()) == []
    assert client.get("/api/v1/jobs", params={"kind": "adapter"}).json()["total"] == 0


def test_an_adapter_that_was_taken_in_is_offered_to_chat_and_to_train_on(
    client: TestClient, database: Database
) -> None:
    job = _job(database, _send(client, ZIP, name="mine"))
    fields = {"r": 4, "lora_alpha": 12.0, "target_modules": ["q_proj", "v_proj"]}
    with database.write() as session:
        stored = get_job(session, job.key)
        stored.status, stored.summary = JobStatus.COMPLETED, {"fields": fields}
    page = client.get("/adapters").text
    assert f'href="/playground?job={job.id}"' in page
    link = page.partition('href="/jobs/new?')[2].partition('"')[0].replace("&amp;", "&")
    form = client.get(f"/jobs/new?{link}").text
    assert f'<option value="{job.id}" selected>' in form
    for name, value in (("r", "4"), ("lora_alpha", "12")):
        assert f'name="{name}" value="{value}"' in form, name
    assert "q_proj, v_proj" in form


def test_the_models_page_leads_there(client: TestClient) -> None:
    assert 'href="/adapters"' in client.get("/models").text
