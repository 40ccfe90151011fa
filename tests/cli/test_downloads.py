"""`loradeck artifacts download`: goes on where it broke off, whatever broke it, and is what the dashboard lists."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.cli import downloads
from app.core.artifacts.store import META, record
from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.status import JobKind
from app.core.paths import DataFolder
from tests.cli.conftest import Command
from tests.live_server import Served, serve_process

NAME = "weights ä.safetensors"
CONTENT = random.Random(3).randbytes(6 * 1024**2)


def add_artifact(home: Path, content: bytes = CONTENT) -> Job:
    """A job with an adapter of one large file."""
    folder = DataFolder(home)
    database = Database(f"sqlite:///{home / 'loradeck.db'}")
    with database.write() as session:
        job = enqueue(session, Job(name="x", kind=JobKind.TRAIN, created_at=time.time()))
        target = folder.job(job.key) / "adapter"
        target.mkdir(parents=True)
        (target / NAME).write_bytes(content)
        files = [{"path": NAME, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}]
        (target / META).write_text(json.dumps({"files": files}))
        record(session, folder, job.key, None, {"kind": "adapter", "path": "adapter"})
    database.engine.dispose()
    return job


@pytest.fixture
def job(server: Served) -> Iterator[Job]:
    """Whole again afterwards: other tests share this dashboard, and its doctor."""
    job = add_artifact(server.home)
    yield job
    (DataFolder(server.home).job(job.key) / "adapter" / NAME).write_bytes(CONTENT)


def begin(target: Path, served: Served, job: Job, count: int) -> None:
    """As a command leaves it that was killed after so many bytes."""
    url = f"{served.url}/api/v1/jobs/{job.id}/artifacts/adapter"
    response = httpx.get(url, headers=served.headers)
    target.with_name(f"{target.name}.part").write_bytes(response.content[:count])
    target.with_name(f"{target.name}.part.etag").write_text(response.headers["etag"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_file_is_downloaded_as_it_lies_there(loradeck: Command, job: Job, tmp_path: Path) -> None:
    target = tmp_path / "w.bin"
    saved = loradeck("artifacts", "download", job.id, "adapter", "--file", NAME, "-o", target, "--json")
    assert (saved.code, saved.json["file_bytes"]) == (0, len(CONTENT))
    assert target.read_bytes() == CONTENT
    missing = loradeck("artifacts", "download", job.id, "adapter", "--file", "../x", "-o", tmp_path / "y")
    assert missing.code == 2
    assert names(tmp_path) == ["w.bin"]


@pytest.mark.parametrize("count", [1, 5_000_000, 6_291_600])
def test_a_killed_command_is_taken_up_by_the_next(
    loradeck: Command, server: Served, job: Job, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.zip"
    begin(target, server, job, count)
    came: list[int] = []
    save = downloads._save
    monkeypatch.setattr(downloads, "_save", lambda response, file: (came.append(file.tell()), save(response, file)))
    assert loradeck("artifacts", "download", job.id, "adapter", "-o", target).code == 0
    assert came == [count]
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
    assert names(tmp_path) == ["a.zip"]


def test_what_has_all_come_is_only_verified(loradeck: Command, server: Served, job: Job, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    begin(target, server, job, 10**9)
    assert loradeck("artifacts", "download", job.id, "adapter", "-o", target).code == 0
    assert zipfile.ZipFile(target).testzip() is None


def test_the_beginning_of_another_artifact_is_not_gone_on_with(
    loradeck: Command, server: Served, job: Job, tmp_path: Path
) -> None:
    target, other = tmp_path / "a.zip", add_artifact(server.home, CONTENT[::-1])
    begin(target, server, other, 4_000_000)
    assert loradeck("artifacts", "download", job.id, "adapter", "-o", target).code == 0
    with zipfile.ZipFile(target) as archive:
        assert archive.read(f"loradeck-job-{job.id}-adapter/{NAME}") == CONTENT


def test_what_was_damaged_on_this_side_is_not_handed_out(
    loradeck: Command, server: Served, job: Job, tmp_path: Path
) -> None:
    target = tmp_path / "a.zip"
    begin(target, server, job, 4_000_000)
    with target.with_name("a.zip.part").open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"not what was sent")
    damaged = loradeck("artifacts", "download", job.id, "adapter", "-o", target)
    assert (damaged.code, names(tmp_path)) == (1, [])
    assert "damaged" in damaged.err or "SHA-256" in damaged.err


def test_a_file_that_has_changed_there_is_not_handed_out(
    loradeck: Command, server: Served, job: Job, tmp_path: Path
) -> None:
    path = DataFolder(server.home).job(job.key) / "adapter" / NAME
    path.write_bytes(CONTENT[::-1])
    for more in ([], ["--file", NAME]):
        damaged = loradeck("artifacts", "download", job.id, "adapter", *more, "-o", tmp_path / "a")
        assert (damaged.code, names(tmp_path)) == (1, [])


def test_a_full_disk_on_this_side_keeps_what_has_come(
    loradeck: Command, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("app.cli.downloads.os.fsync", full)
        failed = loradeck("artifacts", "download", job.id, "adapter", "-o", tmp_path / "x.zip")
    assert failed.code == 1
    assert "No space left on device" in failed.err
    assert "Run the same command again" in failed.err
    assert names(tmp_path) == ["x.zip.part", "x.zip.part.etag"]
    assert loradeck("artifacts", "download", job.id, "adapter", "-o", tmp_path / "x.zip").code == 0


def test_a_dashboard_that_is_killed_and_started_again_in_the_middle_costs_nothing(
    tmp_path: Path, loradeck: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that starts again listens on another port: the command finds it by server.json."""
    home, target = tmp_path / "home", tmp_path / "out" / "a.zip"
    target.parent.mkdir()
    monkeypatch.setenv("LORADECK_HOME", str(home))
    part, results = target.with_name("a.zip.part"), []
    with serve_process(home) as first:
        job = add_artifact(home, random.Random(4).randbytes(1024) * 150 * 1024)
        slow = httpx.Response.iter_bytes
        first_pid, pause = first.process, threading.Event()

        def hold(response: httpx.Response) -> object:
            """Take some, then wait until the dashboard is gone."""
            for index, chunk in enumerate(slow(response)):
                if index == 20 and not pause.is_set():
                    first_pid.kill()
                    first_pid.wait()
                    os.unlink(home / "server.json")
                    pause.set()
                yield chunk

        monkeypatch.setattr(httpx.Response, "iter_bytes", hold)
        command = ("artifacts", "download", job.id, "adapter", "-o", target)
        thread = threading.Thread(target=lambda: results.append(loradeck(*command)))
        thread.start()
        assert pause.wait(30)
    assert part.stat().st_size < 150 * 1024**2
    with serve_process(home):
        thread.join(60)
        assert results[0].code == 0, results[0].err
    assert target.stat().st_size > 150 * 1024**2
    assert names(target.parent) == ["a.zip"]


def test_a_dashboard_that_stays_away_ends_the_command_and_keeps_what_has_come(
    tmp_path: Path, loradeck: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, target = tmp_path / "home", tmp_path / "a.zip"
    monkeypatch.setenv("LORADECK_HOME", str(home))
    monkeypatch.setattr(downloads, "PATIENCE_SECONDS", 1.0)
    with serve_process(home) as served:
        job = add_artifact(home, bytes(100 * 1024**2))
        read = httpx.Response.iter_bytes

        def kill_it(response: httpx.Response) -> object:
            for index, chunk in enumerate(read(response)):
                if index == 5:
                    served.process.kill()
                yield chunk

        monkeypatch.setattr(httpx.Response, "iter_bytes", kill_it)
        failed = loradeck("artifacts", "download", job.id, "adapter", "-o", target)
    assert failed.code == 1
    assert "broke off after" in failed.err
    assert names(tmp_path)[:2] == ["a.zip.part", "a.zip.part.etag"]
