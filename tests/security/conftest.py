"""An application with accounts switched on, and a client for each kind of identity."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.core.accounts.models import User
from app.core.accounts.roles import Role
from app.core.accounts.sessions import start_session
from app.core.accounts.users import add_user
from app.core.database import Database
from app.core.paths import DataFolder
from app.core.settings import Settings
from app.main import create_app
from app.web import tailer as web_tailer
from tests.core.conftest import migrated_file  # noqa: F401 - a fixture

PASSWORD = "correct horse battery"
HOST = "127.0.0.1"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_tailer, "POLL_SECONDS", 0.01)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Accounts are on."""
    return Settings(
        home=tmp_path / "home", cache=tmp_path / "cache", local_roots=[tmp_path / "models"], auth="accounts"
    )


@pytest.fixture
def app(settings: Settings, folder: DataFolder, migrated_file: Path) -> Iterator[FastAPI]:  # noqa: F811
    """The whole application, nobody in it yet."""
    shutil.copy(migrated_file, folder.home / "loradeck.db")
    app = create_app(settings)
    with TestClient(app, base_url=f"http://{HOST}"):
        yield app


@pytest.fixture
def database(app: FastAPI) -> Database:
    """Its database."""
    database: Database = app.state.database
    return database


def browse(app: FastAPI, **headers: str) -> TestClient:
    """A browser on the dashboard's own pages, which follows no redirect."""
    own = {"Sec-Fetch-Site": "same-origin", **headers}
    return TestClient(app, base_url=f"http://{HOST}", headers=own, follow_redirects=False)


@pytest.fixture
def anonymous(app: FastAPI) -> TestClient:
    """Somebody unknown."""
    return browse(app)


@pytest.fixture
def users(database: Database) -> dict[Role, User]:
    """One of each role, named for it."""
    with database.write() as session:
        return {role: add_user(session, role.value, PASSWORD, role) for role in Role}


LogIn = Callable[[Role], TestClient]


@pytest.fixture
def logged_in(app: FastAPI, users: dict[Role, User], database: Database) -> LogIn:
    """A browser in which the user of a role is logged in."""

    def log_in(role: Role) -> TestClient:
        client = browse(app)
        with database.write() as session:
            client.cookies.set(app.state.identities.cookie, start_session(session, users[role], "a test", HOST))
        return client

    return log_in


@pytest.fixture
def bearer(app: FastAPI) -> TestClient:
    """A script with the installation's own token."""
    client = TestClient(app, base_url=f"http://{HOST}", follow_redirects=False)
    client.headers["Authorization"] = f"Bearer {app.state.token}"
    return client
