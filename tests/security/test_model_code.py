"""Code that comes with a model: shown to everybody, allowed by admins alone, recorded; row 37."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.core.accounts.models import AuditEntry
from app.core.accounts.roles import Role
from app.core.database import Database
from app.core.datasets.store import add_file
from app.core.models.models import CodeConsent
from app.core.paths import DataFolder
from app.core.settings import Settings
from tests.conftest import write_dataset
from tests.core.models.test_consent import own_code_folder
from tests.security.conftest import LogIn

SPEC = {"base_model": "own", "dataset": "small", "max_steps": 1}


@pytest.fixture
def own(settings: Settings, bearer: TestClient, database: Database, folder: DataFolder, tmp_path: Path) -> Path:
    """The model `own` and a dataset, registered."""
    place = own_code_folder(settings.local_roots[0] / "own")
    (place / "modeling.py").write_text("<script>alert(1)</script>  # \u202e\n")
    assert bearer.post("/api/v1/models", json={"path": str(place)}).json()["needs_code"]
    with database.write() as session:
        add_file(session, folder, write_dataset(tmp_path / "small.jsonl"), "small")
    return place


def _page(client: TestClient) -> str:
    """The path of the model's page."""
    return f"/models/{client.get('/api/v1/models/own').json()['id']}"


def _hash(client: TestClient) -> str:
    found: str = client.get("/api/v1/models/own/code").json()["sha256"]
    return found


def _submit(client: TestClient) -> tuple[int, str]:
    response = client.post("/api/v1/jobs", json={"spec": SPEC})
    return response.status_code, response.text


def test_row_37_only_an_admin_allows_code_and_only_what_was_shown(
    own: Path, logged_in: LogIn, database: Database
) -> None:
    """LLaMA-Factory CVE-2026-58116."""
    admin, member, viewer = (logged_in(role) for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER))
    sha256, path = _hash(viewer), _page(viewer)
    for client in (member, viewer):
        page = unescape(client.get(path).text)
        assert "<script>alert(1)</script>  # \\u202e" in page
        assert "<script>alert" not in client.get(path).text
        assert "Only an admin can allow it" in page
        assert client.post(f"{path}/code/{sha256}/allow").status_code == 403
        assert client.put(f"/api/v1/models/own/code/{sha256}").status_code == 403
    status, told = _submit(member)
    assert status == 422
    assert "An admin can look at the code and allow it" in told

    assert "Allow just these files" in admin.get(path).text
    assert admin.post(f"{path}/code/{'0' * 64}/allow").status_code == 409
    assert admin.post(f"{path}/code/{sha256}/allow").headers["location"] == path
    page = admin.get(path).text
    assert "Allowed</strong> by admin" in page
    assert sha256 in page
    assert _submit(member)[0] == 201
    with database.read() as session:
        (consent,) = session.exec(select(CodeConsent)).all()
        rows = session.exec(select(AuditEntry).where(AuditEntry.action == "allow_model_code")).all()
    assert (consent.given_by, consent.sha256) == ("admin", sha256)
    assert [(row.actor, row.subject) for row in rows] == [("admin", f"{path}/code/{sha256}/allow")]

    for client in (member, viewer):
        assert client.post(f"{path}/code/{sha256}/withdraw").status_code == 403
        assert client.delete(f"/api/v1/models/own/code/{sha256}").status_code == 403
    assert admin.post(f"{path}/code/{sha256}/withdraw").status_code == 303
    assert _submit(member)[0] == 422
    page = admin.get(path).text
    assert "Not allowed" in page
    assert "taken back" in page


def test_row_37_a_change_is_named_and_refused_again(own: Path, logged_in: LogIn) -> None:
    admin = logged_in(Role.ADMIN)
    sha256, path = _hash(admin), _page(admin)
    allowed = admin.put(f"/api/v1/models/own/code/{sha256}").json()
    assert (allowed["allowed"], allowed["consents"][0]["given_by"]) == (True, "admin")
    (own / "helper.py").write_text("import os")
    code = admin.get("/api/v1/models/own/code").json()
    assert (code["allowed"], code["change"]) == (False, "helper.py has changed")
    status, told = _submit(admin)
    assert (status, "helper.py has changed" in told) == (422, True)
    assert "helper.py has changed" in admin.get(path).text
    assert admin.put(f"/api/v1/models/own/code/{sha256}").status_code == 409
    taken_back = admin.delete(f"/api/v1/models/own/code/{sha256}").json()
    assert (taken_back["consents"][0]["withdrawn_by"], taken_back["allowed"]) == ("admin", False)


@pytest.mark.parametrize("path", ["/models/0", "/models/99999999999999999999", "/api/v1/models/gone/code"])
def test_a_model_that_is_not_there_is_not_found(own: Path, logged_in: LogIn, path: str) -> None:
    assert logged_in(Role.ADMIN).get(path).status_code == 404
