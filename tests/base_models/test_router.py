"""Pages of base models over HTTP."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind
from app.core.models.models import BaseModel, ModelStatus
from tests.core.models.gguf_file import write_gguf


def test_hub_id_is_registered_and_its_import_queued(client: TestClient, database: Database) -> None:
    response = client.post("/models", data={"path": "acme/Small-1B", "name": ""}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/models")
    with database.read() as session:
        model = session.exec(select(BaseModel).where(BaseModel.name == "small-1b")).one()
        job = session.exec(select(Job).where(Job.kind == JobKind.IMPORT)).one()
    assert (model.status, job.base_model_id) == (ModelStatus.IMPORTING, model.id)
    page = client.get("/models").text
    assert "importing" in page
    assert f'href="/jobs/{job.id}"' in page


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "Give a folder or a hub id."),
        ("/etc/passwd", "is not under an allowed folder. Name its folder in LORADECK_LOCAL_ROOTS"),
        ("../../etc", "is not under an allowed folder"),
        ("../no such folder", "is not under an allowed folder"),
        ("no such thing", "is neither a folder that exists nor a hub id"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}])
def test_bad_path_is_refused_beside_its_field(
    client: TestClient, database: Database, headers: dict[str, str], path: str, message: str
) -> None:
    response = client.post("/models", data={"path": path, "name": "kept"}, headers=headers)
    page = unescape(response.text)
    assert response.status_code == 422
    errors = page[page.index('id="errors-path"') :]
    assert message in errors[: errors.index("</ul>")]
    assert 'value="kept"' in page
    assert ("<html" in page) is not bool(headers)
    with database.read() as session:
        assert len(session.exec(select(BaseModel)).all()) == 1


def test_folder_without_a_model_says_what_it_lacks(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "hollow").mkdir()
    response = client.post("/models", data={"path": str(tmp_path / "hollow")})
    assert response.status_code == 422
    assert "config.json" in response.text


def test_taken_name_is_said_beside_the_name(client: TestClient) -> None:
    response = client.post("/models", data={"path": "acme/other", "name": "tiny"})
    assert response.status_code == 422
    assert "is registered already" in unescape(response.text).split('id="errors-name"')[1]


def test_failed_import_shows_why(client: TestClient, database: Database) -> None:
    with database.write() as session:
        session.add(BaseModel(name="bad", status=ModelStatus.FAILED, error="no <b>such</b> repo", created_at=0.0))
    page = client.get("/models/list").text
    assert "no &lt;b&gt;such&lt;/b&gt; repo" in page
    assert "<html" not in page


def _failed(database: Database, source: dict[str, str]) -> int:
    with database.write() as session:
        model = BaseModel(name="bad", status=ModelStatus.FAILED, error="no network", source=source, created_at=0.0)
        session.add(model)
        session.flush()
        return model.key


def _model(database: Database, key: int) -> BaseModel:
    with database.read() as session:
        return session.get_one(BaseModel, key)


@pytest.mark.parametrize("htmx", [False, True])
def test_a_failed_import_is_repeated_by_its_button(client: TestClient, database: Database, htmx: bool) -> None:
    key = _failed(database, {"kind": "hub", "hub_id": "acme/bad"})
    action = f"/models/{key}/import"
    page = client.get("/models").text
    assert page.count(f'action="{action}"') == page.count("Import again") == 1
    headers = {"HX-Request": "true"} if htmx else {}
    response = client.post(action, headers=headers, follow_redirects=False)
    assert response.status_code == (200 if htmx else 303)
    assert response.headers.get("location") == (None if htmx else "/models")
    with database.read() as session:
        job = session.exec(select(Job).where(Job.kind == JobKind.IMPORT)).one()
    assert (_model(database, key).status, job.base_model_id) == (ModelStatus.IMPORTING, key)
    shown = response.text if htmx else client.get("/models/list").text
    assert shown.startswith('<section id="model-list"')
    assert f'href="/jobs/{job.id}"' in shown
    assert "Import again" not in shown
    assert "no network" not in shown


@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}])
def test_an_import_that_cannot_be_repeated_says_why(
    client: TestClient, database: Database, tmp_path: Path, headers: dict[str, str]
) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(write_gguf(path).read_bytes()[:50])
    key = _failed(database, {"kind": "gguf", "path": str(path)})
    response = client.post(f"/models/{key}/import", headers=headers)
    assert response.status_code == 422
    assert ("<html" in response.text) is not bool(headers)
    for page in (response.text, client.get("/models/list").text):
        assert "cut.gguf is not a readable GGUF file: it is cut short at 50 bytes" in page
        assert "Import again" in page
    model = _model(database, key)
    assert (model.status, model.error) == (ModelStatus.FAILED, "cut.gguf is not a readable GGUF file: it is cut short "
                                           "at 50 bytes, within its header")  # fmt: skip
    with database.read() as session:
        assert session.exec(select(Job)).all() == []


def test_only_failed_imports_are_repeated(client: TestClient, database: Database) -> None:
    with database.read() as session:
        ready = session.exec(select(BaseModel)).one().key
    assert "Import again" not in client.get("/models").text
    assert client.post(f"/models/{ready}/import").status_code == 409
    for unknown in (77, 10**30, -1):
        assert client.post(f"/models/{unknown}/import").status_code == 404
    with database.read() as session:
        assert session.exec(select(Job)).all() == []


def test_a_numeric_name_is_refused_beside_the_name(client: TestClient) -> None:
    response = client.post("/models", data={"path": "acme/other", "name": "42"})
    assert response.status_code == 422
    assert "is a number, as ids are" in unescape(response.text).split('id="errors-name"')[1]
