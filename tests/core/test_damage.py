"""A damaged or lost database is said in words and never replaced by an empty one."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.core import damage
from app.core.damage import open_checked, refuse_damage
from app.core.database import Database
from app.core.errors import DatabaseDamaged
from app.core.events import log
from app.core.events.types import EventKind
from app.core.paths import DataFolder
from app.core.settings import Settings
from app.main import create_app


def flip(database: Database, damage: str) -> bytes:
    """Damage the file as a bad disk does; returns what it then holds."""
    with database.write() as session:
        for _ in range(300):
            log.append(session, EventKind.LOG, {"lines": ["x" * 200]})
    database.engine.dispose()
    content = bytearray(database.path.read_bytes())
    size = {"header": (0, 100), "page": (4096, 8192), "last page": (len(content) - 4096, len(content))}[damage]
    content[slice(*size)] = b"\xa5" * (size[1] - size[0])
    database.path.write_bytes(content)
    return bytes(content)


@pytest.fixture(params=["header", "page", "last page"])
def damaged(request: pytest.FixtureRequest, database: Database) -> bytes:
    return flip(database, request.param)


def test_a_flipped_page_is_found_at_the_start_and_the_file_left_as_it_is(
    settings: Settings, folder: DataFolder, damaged: bytes
) -> None:
    database = open_checked(settings.effective_database_url, folder)
    for session in (database.read, database.write):
        with pytest.raises(DatabaseDamaged, match="is damaged") as caught, session():
            raise AssertionError
        assert "loradeck restore FILE --force" in str(caught.value.advice)
    assert database.path.read_bytes() == damaged
    assert list(folder.backups.iterdir()) == []


@pytest.mark.usefixtures("damaged")
def test_every_page_and_call_says_so_and_nothing_is_written(
    settings: Settings, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.backups / "before-0009.db").write_bytes(b"")
    app = create_app(settings)
    headers = {"Authorization": f"Bearer {app.state.token}"}
    before = app.state.database.path.read_bytes()
    with TestClient(app, base_url="http://127.0.0.1", headers=headers, raise_server_exceptions=False) as client:
        for method, path in (("GET", "/"), ("GET", "/jobs"), ("POST", "/jobs/demo")):
            page = client.request(method, path)
            assert page.status_code == 503, path
            assert "The database is damaged" in page.text
            assert "loradeck restore FILE --force" in page.text
            assert str(folder.backups / "before-0009.db") in page.text
        for method, path in (("GET", "health"), ("GET", "jobs"), ("POST", "jobs")):
            answer = client.request(method, f"/api/v1/{path}", json={"spec": {}})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_damaged")
            assert "retry-after" not in answer.headers
    assert app.state.database.path.read_bytes() == before


def test_damage_that_is_met_while_the_dashboard_runs_ends_its_streams(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings)
    headers = {"Authorization": f"Bearer {app.state.token}"}
    with TestClient(app, base_url="http://127.0.0.1", headers=headers) as client:
        assert client.get("/api/v1/health").status_code == 200
        app.state.database.damage = DatabaseDamaged("found by the way")
        assert "found by the way" in client.get("/").text
        deadline = time.monotonic() + 30
        while not app.state.tailer._stopping.is_set():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("state", ["missing", "empty"])
def test_a_lost_database_beside_its_folders_is_no_first_start(
    settings: Settings, folder: DataFolder, database: Database, state: str
) -> None:
    folder.job(3).mkdir()
    database.engine.dispose()
    database.path.unlink()
    if state == "empty":
        database.path.touch()
    found = open_checked(settings.effective_database_url, folder).damage
    assert found is not None
    assert f"is {state}, but {folder.home} holds 1 folders" in found.message
    assert not database.path.exists() or database.path.read_bytes() == b""


def test_an_empty_data_folder_is_a_first_start(settings: Settings) -> None:
    folder = DataFolder(settings.home).create()
    database = open_checked(settings.effective_database_url, folder)
    with database.read() as session:
        assert log.latest_id(session) == 0
    database.engine.dispose()


def test_damage_that_is_met_by_the_way_ends_all_use(database: Database) -> None:
    flip(database, "last page")
    with pytest.raises(DatabaseDamaged), database.write() as session:
        session.execute(text("SELECT max(length(data)) FROM event")).one()
    with pytest.raises(DatabaseDamaged, match="is damaged"), database.write() as session:
        raise AssertionError


def test_a_large_database_that_was_closed_is_checked_beside_the_work(
    database: Database, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "_CHECKED_AT_ONCE_BYTES", 0)
    started: list[tuple[Database]] = []

    class Later:
        def __init__(self, *, target: object, args: tuple[Database], **_options: object) -> None:
            self.target, self.args = target, args

        def start(self) -> None:
            started.append(self.args)

    monkeypatch.setattr(damage.threading, "Thread", Later)
    flip(database, "last page")
    refuse_damage(database, folder)
    assert started == [(database,)]
    damage._check_later(database)
    assert database.damage is not None


def test_a_large_database_that_was_left_open_is_checked_at_once(
    database: Database, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its WAL lies there: its last user was killed, or still runs."""
    monkeypatch.setattr(damage, "_CHECKED_AT_ONCE_BYTES", 0)
    flip(database, "last page")
    database.path.with_name("loradeck.db-wal").write_bytes(b"left")
    with pytest.raises(DatabaseDamaged):
        refuse_damage(database, folder)


def test_a_sound_database_is_opened(settings: Settings, folder: DataFolder, database: Database, tmp_path: Path) -> None:
    shutil.copytree(folder.home, tmp_path / "copy")
    assert open_checked(settings.effective_database_url, folder).damage is None
