"""A backup is whole or absent, made while others write, and says what it does not hold."""

from __future__ import annotations

import hashlib
import json
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2 as sqlite
import pytest
from sqlmodel import select

from app.core.artifacts.manifest import kept_mark
from app.core.artifacts.models import Artifact
from app.core.backup import archive, snapshot
from app.core.backup.archive import write_backup
from app.core.backup.snapshot import copy_database, open_file
from app.core.database import Database
from app.core.errors import BackupFailed, Conflict, DatabaseDamaged, InvalidInput
from app.core.events import log
from app.core.events.types import EventKind
from app.core.metrics.store import put_metrics
from app.core.paths import DataFolder

Count = Callable[[Database], dict[str, int]]


def manifest_of(path: Path) -> Any:
    with zipfile.ZipFile(path) as bundle:
        return json.loads(bundle.read("manifest.json"))


@contextmanager
def writers(database: Database, count: int = 3) -> Iterator[list[int]]:
    """Others that each add an event and a metric in one transaction, over and over; yields how many they came to."""
    stop, done = threading.Event(), [0] * count

    def write(number: int) -> None:
        own = Database(str(database.engine.url))
        while not stop.is_set():
            with own.write() as session:
                log.append(session, EventKind.LOG, {"lines": ["x" * 500]}, job_id=1)
                put_metrics(session, 1, done[number], 0.0, {f"load_{number}": 1.0})
            done[number] += 1
        own.engine.dispose()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        while not all(done):
            pass
        yield done
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_backup_holds_the_database_and_each_jobs_small_files(
    filled: Database, folder: DataFolder, tmp_path: Path, count: Count
) -> None:
    target = tmp_path / "b.zip"
    made = write_backup(filled, folder, target)
    assert made["database"]["rows"] == count(filled)
    assert made["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with zipfile.ZipFile(target) as bundle:
        assert sorted(bundle.namelist()) == ["jobs/1/receipt.json", "jobs/1/train.log", "loradeck.db", "manifest.json"]
        assert hashlib.sha256(bundle.read("loradeck.db")).hexdigest() == made["database"]["sha256"]
    assert [left["what"].partition(":")[0] for left in made["left_out"]] == [
        "files of base models", "adapters, models and checkpoints", "files of datasets",
        "what unfinished jobs go on from", "the API token", "tokens of other services (secrets/)",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_with_files_every_file_that_the_database_names_is_in_it(
    filled: Database, folder: DataFolder, tmp_path: Path, hashes: Callable[[Path], dict[str, str]]
) -> None:
    made = write_backup(filled, folder, tmp_path / "b.zip", with_files=True)
    listed = {file["path"]: file["sha256"] for file in manifest_of(tmp_path / "b.zip")["files"]}
    assert listed == hashes(folder.home)
    assert (made["missing"], made["changed"], made["files"]["count"]) == ([], [], len(listed))
    assert "what jobs produced" not in str(made["left_out"])


def test_mark_of_a_checkpoint_that_somebody_keeps_is_in_it(
    filled: Database, folder: DataFolder, tmp_path: Path
) -> None:
    with filled.write() as session:
        artifact = session.exec(select(Artifact)).all()[0]
        artifact.kept = True
        mark = kept_mark(folder.job(artifact.job_id) / artifact.path)
    mark.touch()
    write_backup(filled, folder, tmp_path / "b.zip", with_files=True)
    with zipfile.ZipFile(tmp_path / "b.zip") as bundle:
        assert str(mark.relative_to(folder.home)) in bundle.namelist()


def test_no_secret_is_in_a_backup(filled: Database, folder: DataFolder, tmp_path: Path) -> None:
    folder.secrets.mkdir()
    for name in ("api_token", "server.json", "secrets/hf_token"):
        (folder.home / name).write_text("canary-5f0c")
    write_backup(filled, folder, tmp_path / "b.zip", with_files=True)
    with zipfile.ZipFile(tmp_path / "b.zip") as bundle:
        assert not [name for name in bundle.namelist() if b"canary-5f0c" in bundle.read(name)]


def test_files_that_are_gone_or_not_as_recorded_are_said(filled: Database, folder: DataFolder, tmp_path: Path) -> None:
    adapter = folder.job(1) / "adapter"
    (adapter / "README.md").unlink()
    (adapter / "adapter_model.safetensors").write_bytes(b"\2" * 5000)
    (folder.dataset(1) / "rows.jsonl").unlink()
    (folder.dataset(1) / "rows.jsonl").symlink_to("/etc/passwd")
    made = write_backup(filled, folder, tmp_path / "b.zip", with_files=True)
    assert made["missing"] == ["jobs/1/adapter/README.md", "datasets/1/rows.jsonl"]
    assert made["changed"] == ["jobs/1/adapter/adapter_model.safetensors"]


def test_a_backup_under_load_is_one_snapshot_and_ends(
    filled: Database, folder: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps of a page others write between any two: each transaction is in it wholly or not at all."""
    monkeypatch.setattr(snapshot, "_STEP_PAGES", 1)
    with writers(filled) as done:
        before = sum(done)
        made = write_backup(filled, folder, tmp_path / "b.zip")
        after = sum(done)
    rows = made["database"]["rows"]
    assert before <= rows["event"] - 1 <= after  # one event is of the job that was queued
    assert rows["metric"] - 50 == rows["event"] - 1
    assert after > before, "nobody wrote meanwhile, so nothing was tested"


class _WrittenBeside:
    """A connection whose backup is interrupted by another's write after each step."""

    def __init__(self, connection: Any, write: Callable[[], None]) -> None:
        self._connection = connection
        self._write = write

    def execute(self, statement: str) -> Any:
        return self._connection.execute(statement)

    def backup(self, target: Any, *, pages: int) -> None:
        def step(_status: int, _remaining: int, total: int) -> None:
            self.steps = getattr(self, "steps", 0) + 1
            assert self.steps <= total, "the copy began anew"
            self._write()

        self._connection.backup(target, pages=pages, progress=step)


def test_a_copy_comes_to_its_end_however_much_is_written(
    filled: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite begins a copy anew when others write between two steps, unless it is taken of one snapshot."""

    def write() -> None:
        with filled.write() as session:
            log.append(session, EventKind.LOG, {})

    @contextmanager
    def open_watched(path: Path) -> Iterator[_WrittenBeside]:
        with open_file(path) as connection:
            yield _WrittenBeside(connection, write)

    monkeypatch.setattr(snapshot, "_STEP_PAGES", 1)
    monkeypatch.setattr(snapshot, "open_file", open_watched)
    copy_database(filled.path, tmp_path / "copy.db")
    with sqlite.connect(tmp_path / "copy.db") as connection:
        assert connection.execute("SELECT count(*) FROM event").fetchone() == (1,)
    connection.close()


def test_a_copy_waits_for_no_writer_and_holds_none_up(filled: Database, tmp_path: Path) -> None:
    """The copy goes on while another process holds the write lock, and writers while the copy is under way."""
    with filled.write() as session:
        log.append(session, EventKind.LOG, {"lines": []})
        session.flush()
        copy_database(filled.path, tmp_path / "copy.db")
    with sqlite.connect(tmp_path / "copy.db") as connection:
        assert connection.execute("SELECT count(*) FROM event").fetchone() == (1,)
    connection.close()


def test_what_is_there_is_not_overwritten_unless_asked(filled: Database, folder: DataFolder, tmp_path: Path) -> None:
    target = tmp_path / "b.zip"
    target.write_text("mine")
    with pytest.raises(Conflict, match="exists") as caught:
        write_backup(filled, folder, target)
    assert "--force" in str(caught.value.advice)
    assert target.read_text() == "mine"
    write_backup(filled, folder, target, force=True)
    assert zipfile.is_zipfile(target)


@pytest.mark.parametrize("place", [".", "no/such/folder/b.zip"])
def test_a_target_that_cannot_be_is_named(filled: Database, folder: DataFolder, tmp_path: Path, place: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        write_backup(filled, folder, tmp_path / place)
    assert caught.value.faults[0].field == "FILE"


def test_a_backup_that_fails_leaves_nothing_behind(
    filled: Database, folder: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "_add_files", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="No space left"):
        write_backup(filled, folder, tmp_path / "b.zip")
    assert sorted(tmp_path.iterdir()) == before


def test_what_a_killed_backup_left_is_used_again(filled: Database, folder: DataFolder, tmp_path: Path) -> None:
    for name in (".b.zip.partial", ".b.zip.partial.db"):
        (tmp_path / name).write_bytes(b"left" * 10000)
    write_backup(filled, folder, tmp_path / "b.zip")
    assert zipfile.is_zipfile(tmp_path / "b.zip")
    assert not list(tmp_path.glob(".b.zip*"))


def test_too_little_disk_space_is_said_before_anything_is_written(
    filled: Database, folder: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 1000}))
    with pytest.raises(BackupFailed, match="0 MiB free"):
        write_backup(filled, folder, tmp_path / "b.zip")
    assert not list(tmp_path.glob(".b.zip*"))


@pytest.mark.parametrize("damage", ["header", "page"])
def test_a_damaged_database_is_not_backed_up(filled: Database, folder: DataFolder, tmp_path: Path, damage: str) -> None:
    filled.engine.dispose()
    content = bytearray(filled.path.read_bytes())
    start = 0 if damage == "header" else 4096
    content[start : start + 2048] = b"\xa5" * 2048
    filled.path.write_bytes(content)
    with pytest.raises(DatabaseDamaged, match="nothing was backed up") as caught:
        write_backup(filled, folder, tmp_path / "b.zip")
    assert "loradeck restore" in str(caught.value.advice)
    assert not list(tmp_path.glob("*b.zip*"))


def test_without_a_database_there_is_nothing_to_back_up(folder: DataFolder, tmp_path: Path) -> None:
    nothing = Database(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(BackupFailed, match="no database"):
        write_backup(nothing, folder, tmp_path / "b.zip")
    assert not (tmp_path / "none.db").exists()
