"""A restored data folder is the one that was backed up; anything wrong is found before anything is touched."""

from __future__ import annotations

import fcntl
import json
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.accounts.roles import Role, Scope
from app.core.accounts.sessions import list_sessions, start_session
from app.core.accounts.tokens import add_token, list_tokens
from app.core.accounts.users import add_user, list_users
from app.core.backup.archive import write_backup
from app.core.backup.restore import restore_backup
from app.core.damage import open_checked
from app.core.database import Database
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.errors import Conflict, DatabaseDamaged, DatabaseTooNew, InvalidInput, RestoreFailed
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from tests.core.backup.test_archive import writers
from tests.live_server import environment_for

Count = Callable[[Database], dict[str, int]]
Hashes = Callable[[Path], dict[str, str]]


@pytest.fixture
def backup(filled: Database, folder: DataFolder, tmp_path: Path) -> Path:
    """A backup with files."""
    write_backup(filled, folder, tmp_path / "b.zip", with_files=True)
    return tmp_path / "b.zip"


@pytest.fixture
def elsewhere(tmp_path: Path) -> DataFolder:
    """Another data folder, not made yet."""
    return DataFolder(tmp_path / "elsewhere")


def database_of(folder: DataFolder) -> Database:
    return Database(f"sqlite:///{folder.home / 'loradeck.db'}")


def everything(home: Path) -> dict[str, bytes]:
    """Every file below a folder but the locks."""
    files = (path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(home)): path.read_bytes() for path in files}


def rewrite(backup: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The backup with other contents: change(name, content), None to leave the file out."""
    target = backup.with_name("changed.zip")
    with zipfile.ZipFile(backup) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def in_manifest(**values: Any) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        return json.dumps({**json.loads(content), **values}).encode() if name == "manifest.json" else content

    return change


def test_restore_drill_under_load(
    filled: Database, folder: DataFolder, elsewhere: DataFolder, tmp_path: Path, count: Count, hashes: Hashes
) -> None:
    """Row counts and file hashes equal, of a backup that was made while others wrote."""
    with writers(filled) as done:
        made = write_backup(filled, folder, tmp_path / "b.zip", with_files=True)
        written = sum(done)
    restored = restore_backup(database_of(elsewhere), elsewhere, tmp_path / "b.zip")
    database = open_checked(f"sqlite:///{elsewhere.home / 'loradeck.db'}", elsewhere)
    assert database.damage is None
    expected = made["database"]["rows"]
    expected["event"] += 1  # that what was before is gone
    assert count(database) == restored["rows"] == expected
    assert count(database)["event"] - 2 == count(database)["metric"] - 50 <= written
    assert hashes(elsewhere.home) == hashes(folder.home)
    assert restored["absent"] == {"models": [], "datasets": []}
    assert restored["set_aside"] is None
    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600
    database.engine.dispose()


def test_what_has_no_files_here_is_failed_and_named(
    filled: Database, folder: DataFolder, elsewhere: DataFolder, tmp_path: Path
) -> None:
    write_backup(filled, folder, tmp_path / "b.zip")
    shutil.rmtree(tmp_path / "tiny")
    restored = restore_backup(database_of(elsewhere), elsewhere, tmp_path / "b.zip")
    assert restored["absent"] == {"models": ["tiny"], "datasets": ["small"]}
    database = database_of(elsewhere)
    with database.read() as session:
        model, dataset = session.get_one(BaseModel, 1), session.get_one(Dataset, 1)
        assert (model.status, dataset.status) == (ModelStatus.FAILED, DatasetStatus.FAILED)
        assert "not in the backup" in str(model.error) + str(dataset.error)
    database.engine.dispose()


def test_logins_of_the_backup_s_time_are_ended(
    filled: Database, folder: DataFolder, elsewhere: DataFolder, tmp_path: Path
) -> None:
    """A stolen cookie that was logged out since would work again."""
    with filled.write() as session:
        user = add_user(session, "ada", "correct horse battery", Role.MEMBER)
        start_session(session, user, "a browser", "")
        add_token(session, user, "script", Scope.READ)
    write_backup(filled, folder, tmp_path / "b.zip")
    restore_backup(database_of(elsewhere), elsewhere, tmp_path / "b.zip")
    database = database_of(elsewhere)
    with database.read() as session:
        assert list_sessions(session, 1) == []
        assert [user.name for user in list_users(session)] == ["ada"]
        assert [token.name for token, _ in list_tokens(session)] == ["script"]
    database.engine.dispose()


def test_a_folder_that_is_not_empty_is_refused_untouched(filled: Database, folder: DataFolder, backup: Path) -> None:
    filled.engine.dispose()
    before = everything(folder.home)
    with pytest.raises(Conflict, match="not empty") as caught:
        restore_backup(filled, folder, backup)
    assert "--force" in str(caught.value.advice)
    assert everything(folder.home) == before


def test_with_force_what_is_replaced_is_set_aside_and_other_files_stay(
    filled: Database, folder: DataFolder, backup: Path, hashes: Hashes
) -> None:
    before = hashes(folder.home)
    (folder.job(1) / "train.log").write_text("one line\nand more\n")
    (folder.job(1) / "adapter" / "README.md").unlink()
    (folder.home / "proofs").mkdir()
    (folder.home / "proofs" / "kept").write_text("kept")
    damaged = b"\xa5" * 20000
    filled.engine.dispose()
    filled.path.write_bytes(damaged)
    filled.path.with_name("loradeck.db-wal").write_bytes(b"stale")
    restored = restore_backup(filled, folder, backup, force=True)
    aside = Path(restored["set_aside"])
    kept = everything(aside)
    kept.pop("loradeck.db-shm", None)  # made to read the old ids
    assert kept == {
        "loradeck.db": damaged, "loradeck.db-wal": b"stale", "jobs/1/train.log": b"one line\nand more\n",
    }  # fmt: skip
    assert hashes(folder.home) == before
    assert (folder.home / "proofs" / "kept").read_text() == "kept"
    assert open_checked(str(filled.engine.url), folder).damage is None


def test_ids_given_since_the_backup_are_not_given_again(filled: Database, folder: DataFolder, backup: Path) -> None:
    """Else a new job would find an older one's checkpoints in its folder, and a page would take old events for new."""
    for _ in range(40):
        with filled.write() as session:
            log.append(session, EventKind.LOG, {})
    folder.job(7).mkdir()
    restore_backup(filled, folder, backup, force=True)
    filled.engine.dispose()
    with filled.write() as session:
        assert (log.latest_id(session), log.pruned_through(session)) == (42, 41)
        assert queue.enqueue(session, Job(name="new", kind=JobKind.TRAIN, created_at=0)).key == 8


@pytest.mark.parametrize("lock", ["web.lock", "worker.lock"])
def test_while_a_dashboard_or_worker_runs_nothing_is_restored(
    filled: Database, folder: DataFolder, backup: Path, lock: str
) -> None:
    before = everything(folder.home)
    with (folder.home / lock).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="runs on"):
            restore_backup(filled, folder, backup, force=True)
    assert everything(folder.home) == before


def _drop(name: str) -> Callable[[str, bytes], bytes | None]:
    return lambda each, content: None if each == name else content


def _flip(name: str) -> Callable[[str, bytes], bytes]:
    return lambda each, content: bytes([content[0] ^ 1, *content[1:]]) if each == name else content


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_drop("manifest.json"), "no whole backup"),
        (_drop("jobs/1/train.log"), "jobs/1/train.log"),
        (_flip("jobs/1/adapter/adapter_model.safetensors"), "damaged"),
        (_flip("loradeck.db"), "damaged"),
        (in_manifest(format=2), "format 2"),
        (in_manifest(files=[{"path": "../evil", "bytes": 1, "sha256": ""}]), "'../evil' is no path"),
        (in_manifest(files=[{"path": "jobs/../../evil", "bytes": 1, "sha256": ""}]), "is no path"),
        (in_manifest(files=[{"path": "/evil", "bytes": 1, "sha256": ""}]), "is no path"),
        (in_manifest(files=[{"path": "api_token", "bytes": 1, "sha256": ""}]), "is no path"),
    ],
)
def test_a_backup_that_is_not_whole_is_refused_and_nothing_changes(
    filled: Database, folder: DataFolder, backup: Path, change: Callable[[str, bytes], bytes | None], said: str
) -> None:
    filled.engine.dispose()
    before = everything(folder.home)
    with pytest.raises(RestoreFailed, match=said):
        restore_backup(filled, folder, rewrite(backup, change), force=True)
    assert everything(folder.home) == before


@pytest.mark.parametrize("content", [b"", b"some text", b"PK\x03\x04 cut off", b"SQLite format 3\0 cut off"])
def test_what_is_no_backup_is_refused(elsewhere: DataFolder, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.zip").write_bytes(content)
    with pytest.raises(RestoreFailed):
        restore_backup(database_of(elsewhere), elsewhere, tmp_path / "b.zip")
    assert everything(elsewhere.home) == {}
    with pytest.raises(InvalidInput, match="no file"):
        restore_backup(database_of(elsewhere), elsewhere, tmp_path / "none.zip")


def test_a_backup_of_a_newer_version_is_refused(elsewhere: DataFolder, filled: Database, tmp_path: Path) -> None:
    with filled.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    filled.engine.dispose()
    with pytest.raises(DatabaseTooNew, match="has schema 9999"):
        restore_backup(database_of(elsewhere), elsewhere, filled.path)
    assert everything(elsewhere.home) == {}


def test_a_bare_copy_of_the_database_is_restored_too(
    filled: Database, folder: DataFolder, elsewhere: DataFolder, count: Count
) -> None:
    copy = folder.backups / "before-9999.db"
    with filled.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("VACUUM INTO ?", (str(copy),))
    restore_backup(database_of(elsewhere), elsewhere, copy)
    database = database_of(elsewhere)
    assert {**count(database), "event": 0} == {**count(filled), "event": 0}
    assert count(database)["event"] == count(filled)["event"] + 1
    database.engine.dispose()


_KILLED = """
import os, signal, sys
from pathlib import Path
from app.core.backup import restore
from app.core.database import Database
from app.core.paths import DataFolder

kill_at, home, source = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
moves = 0

def counted(real):
    def call(*arguments, **options):
        global moves
        moves += 1
        if moves == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call

for place, name in ((restore, "_move_aside"), (restore, "fsync_folder"), (Path, "rename"), (Path, "unlink")):
    setattr(place, name, counted(getattr(place, name)))
restore.restore_backup(Database(f"sqlite:///{home / 'loradeck.db'}"), DataFolder(home), source, force=True)
"""


@pytest.mark.parametrize("kill_at", [1, 4, 6, 8, 10])
def test_a_killed_restore_is_never_started_on_and_can_be_run_again(
    filled: Database, folder: DataFolder, backup: Path, count: Count, hashes: Hashes, kill_at: int
) -> None:
    files = hashes(folder.home)
    expected = count(filled) | {"event": 2}
    with filled.write() as session:
        log.append(session, EventKind.LOG, {"lines": ["after the backup"]})
    (folder.job(1) / "receipt.json").write_text("another")
    filled.engine.dispose()
    command = [sys.executable, "-c", _KILLED, str(kill_at), str(folder.home), str(backup)]
    run = subprocess.run(command, env=environment_for(folder.home), capture_output=True, text=True, timeout=60)
    assert run.returncode == -9, run.stderr
    database = open_checked(str(filled.engine.url), folder)
    if folder.restoring.exists():
        with pytest.raises(DatabaseDamaged, match="did not come to its end"), database.read():
            raise AssertionError
    else:
        assert count(database) == expected  # both the old one and the new one have two events
    restore_backup(database, folder, backup, force=True)
    again = open_checked(str(filled.engine.url), folder)
    assert again.damage is None
    assert (count(again), hashes(folder.home)) == (expected, files)
    again.engine.dispose()
