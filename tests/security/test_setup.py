"""The first account: one link, one admin, and no secret that two installations share."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.core.accounts.setup import get_setup_token
from app.core.accounts.users import list_users
from app.core.database import Database
from app.core.paths import DataFolder
from app.core.settings import Settings
from app.main import create_app
from tests.security.conftest import PASSWORD, browse


@pytest.fixture
def token(app: FastAPI) -> str:
    return get_setup_token(app.state.folder)


def _set_up(client: TestClient, token: str, name: str = "root", password: str = PASSWORD) -> int:
    return client.post("/setup", data={"token": token, "name": name, "password": password}).status_code


def test_the_link_makes_the_first_admin_and_logs_them_in(app: FastAPI, token: str, database: Database) -> None:
    client = browse(app)
    assert client.get("/").headers["location"].startswith("/login")
    assert client.get("/login").headers["location"] == "/setup"
    assert 'value="' + token in client.get("/setup", params={"token": token}).text
    assert _set_up(client, token) == 303
    assert client.get("/users").status_code == 200
    assert not app.state.folder.setup_token.exists()
    with database.read() as session:
        assert [(user.name, user.role) for user in list_users(session)] == [("root", "admin")]


def test_row_09_setup_needs_its_token_metabase_cve_2023_38646(app: FastAPI, token: str, database: Database) -> None:
    client = browse(app)
    for wrong in ("", "x", token[:-1], token + "x", "\ud800"):
        assert _set_up(client, wrong.encode("utf-8", "replace").decode()) == 403
    assert client.get("/setup").status_code == 403
    assert client.get("/setup", params={"token": "x"}).status_code == 403
    assert "loradeck serve" in client.get("/setup").text
    with database.read() as session:
        assert list_users(session) == []


def test_row_09_fifty_set_ups_at_once_make_one_admin_then_404(app: FastAPI, token: str, database: Database) -> None:
    with ThreadPoolExecutor(50) as pool:
        statuses = list(pool.map(lambda n: _set_up(browse(app), token, f"root{n}"), range(50)))
    assert statuses.count(303) == 1
    assert set(statuses) <= {303, 404, 403, 429}
    with database.read() as session:
        assert len(list_users(session)) == 1
    assert _set_up(browse(app), token) == 404
    assert browse(app).get("/setup", params={"token": token}).status_code == 404


def test_a_password_that_is_too_short_makes_nobody(app: FastAPI, token: str, database: Database) -> None:
    client = browse(app)
    assert _set_up(client, token, password="short") == 422
    assert _set_up(client, token, name="no spaces") == 422
    with database.read() as session:
        assert list_users(session) == []
    assert _set_up(client, token) == 303, "the link still works"


def test_row_08_two_installations_share_no_secret_mlflow_cve_2026_2635(tmp_path: Path) -> None:
    """Also Gradio CVE-2026-27167."""
    apps = [create_app(Settings(home=tmp_path / name, auth="accounts")) for name in "ab"]
    assert apps[0].state.token != apps[1].state.token
    assert len(apps[0].state.token) >= 43
    assert apps[0].state.identities.cookie != apps[1].state.identities.cookie
    assert get_setup_token(apps[0].state.folder) != get_setup_token(apps[1].state.folder)


def test_row_08_nobody_logs_in_before_setup(app: FastAPI, token: str) -> None:
    for name, password in (("admin", "admin"), ("admin", ""), ("", ""), ("root", "password123"), ("nobody", token)):
        response = browse(app).post("/login", data={"name": name, "password": password})
        assert response.status_code == 401
        assert "set-cookie" not in response.headers


def test_the_token_stands_in_a_file_of_its_owner_alone(folder: DataFolder) -> None:
    token = get_setup_token(folder)
    assert stat.S_IMODE(folder.setup_token.stat().st_mode) == 0o600
    assert get_setup_token(folder) == token, "the link that was printed before works after a restart"
