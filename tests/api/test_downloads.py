"""Downloads over real connections: taken up anywhere, broken off rather than cut short, never out of their folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import socket
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil
import pytest
from sqlalchemy import text

from app.core.artifacts.store import META, record
from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.status import JobKind
from app.core.paths import DataFolder
from tests.live_server import Served, serve_process

BIG = 32 * 1024**2
Produce = Callable[[dict[str, bytes]], "Made"]


class Made:
    """An artifact on the server's disk, and where it is to be had."""

    def __init__(self, served: Served, job: Job, place: Path) -> None:
        self.served, self.job, self.place = served, job, place
        self.zip = f"{served.url}/api/v1/jobs/{job.id}/artifacts/adapter"

    def file(self, path: str) -> str:
        return f"{self.zip}/files/{quote(path)}"

    def get(self, url: str, **headers: str) -> httpx.Response:
        return httpx.get(url, headers={**self.served.headers, **{k.replace("_", "-"): v for k, v in headers.items()}})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve_process(tmp_path_factory.mktemp("downloads") / "home") as served:
        yield served


@pytest.fixture
def database(served: Served) -> Iterator[Database]:
    database = Database(f"sqlite:///{served.home / 'loradeck.db'}")
    yield database
    database.engine.dispose()


@pytest.fixture
def produce(served: Served, database: Database) -> Produce:
    def produce(contents: dict[str, bytes]) -> Made:
        folder = DataFolder(served.home)
        with database.write() as session:
            job = enqueue(session, Job(name="x", kind=JobKind.TRAIN, created_at=time.time()))
            place = folder.job(job.key) / "adapter"
            files = []
            for name, content in contents.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content)
                digest = hashlib.sha256(content).hexdigest()
                files.append({"path": name, "bytes": len(content), "sha256": digest})
            (place / META).write_text(json.dumps({"files": files}))
            record(session, folder, job.key, None, {"kind": "adapter", "path": "adapter"})
        return Made(served, job, place)

    return produce


def take(stream: Iterator[bytes], count: int) -> bytes:
    """At least so many bytes of it."""
    taken = b""
    while len(taken) < count:
        taken += next(stream)
    return taken


def test_a_zip_put_together_of_ranges_is_the_whole(produce: Produce) -> None:
    made = produce({"a.safetensors": random.Random(1).randbytes(3_000_000), "ü/b.json": b"{}", "empty": b""})
    whole = made.get(made.zip)
    etag, size, body = whole.headers["etag"], len(whole.content), b""
    assert size == int(whole.headers["content-length"])
    for start in range(0, size, 700_001):
        part = made.get(made.zip, Range=f"bytes={start}-{start + 700_000}", If_Range=etag)
        assert part.status_code == 206
        body += part.content
    assert hashlib.sha256(body).digest() == hashlib.sha256(whole.content).digest()
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None


def test_the_whole_is_sent_where_the_artifact_is_another_one_now(produce: Produce, database: Database) -> None:
    made = produce({"a": b"first"})
    etag = made.get(made.zip).headers["etag"]
    digest = hashlib.sha256(b"other").hexdigest()
    (made.place / "a").write_bytes(b"other")
    (made.place / META).write_text(json.dumps({"files": [{"path": "a", "bytes": 5, "sha256": digest}]}))
    with database.write() as session:
        record(session, DataFolder(made.served.home), made.job.key, None, {"kind": "adapter", "path": "adapter"})
    answer = made.get(made.zip, Range="bytes=100-", If_Range=etag)
    assert answer.status_code == 200
    assert answer.headers["etag"] != etag
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.read(f"loradeck-job-{made.job.id}-adapter/a") == b"other"


def test_checksums_that_an_earlier_version_did_not_keep_are_computed_once(produce: Produce, database: Database) -> None:
    made = produce({"a.bin": bytes(1000)})
    first = made.get(made.zip)
    with database.read() as session:
        kept = session.execute(text("SELECT files FROM artifact WHERE job_id = :id"), {"id": made.job.id}).scalar_one()
    assert all(isinstance(file["crc32"], int) for file in json.loads(kept))
    assert made.get(made.zip).headers["etag"] == first.headers["etag"]


def test_one_file_is_sent_as_an_attachment_that_no_browser_runs(produce: Produce) -> None:
    made = produce({"page.html": b"<script>alert(1)</script>", "nested/x.svg": b"<svg onload=alert(1)>"})
    for path in ("page.html", "nested/x.svg"):
        answer = made.get(made.file(path))
        assert answer.content == (made.place / path).read_bytes()
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment; ")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    part = made.get(made.file("page.html"), Range="bytes=8-12")
    assert (part.status_code, part.content) == (206, b"alert")


TRAVERSALS = (
    "../meta.json", "..%2f..%2floradeck.db", "%252e%252e/x", "/etc/passwd", "%2fetc%2fpasswd", "..\\x", "a.bin%00",
    "%00", "a.bin#x", "a.bin/", "a.bin/..", "./a.bin", "nested/../a.bin", "../adapter/a.bin", "../adapter-sibling/s",
)  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS)
def test_cve_2026_2614_no_path_leads_out_of_the_artifact(produce: Produce, path: str) -> None:
    made = produce({"a.bin": b"a", "nested/b": b"b"})
    (made.place.with_name("adapter-sibling")).mkdir()
    (made.place.with_name("adapter-sibling") / "s").write_text("of another")
    target = f"/api/v1/jobs/{made.job.id}/artifacts/adapter/files/{path}"
    host, port = made.served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:  # as it is, past a client that tidies paths
        head = f"GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {made.served.token}\r\n"
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), answer[:200]
    assert b"of another" not in answer.partition(b"\r\n\r\n")[2]


def test_a_link_is_not_followed_whatever_part_of_the_path_it_is(produce: Produce, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    made = produce({"a": b"secret", "folder/b": b"secret"})
    (made.place / "a").unlink()
    (made.place / "a").symlink_to(tmp_path / "secret")
    for url in (made.zip, made.file("a")):
        assert made.get(url).status_code == 409
    os.remove(made.place / "a")
    (made.place / "a").write_bytes(b"secret")
    (made.place / "folder").rename(made.place / "elsewhere")
    (made.place / "folder").symlink_to(made.place / "elsewhere")
    for url in (made.zip, made.file("folder/b")):
        assert made.get(url).status_code == 409


def test_a_pipe_in_a_file_s_place_holds_nothing_up(produce: Produce) -> None:
    made = produce({"a": b""})
    (made.place / "a").unlink()
    os.mkfifo(made.place / "a")
    assert made.get(made.zip).status_code == 409


def interrupted(made: Made, url: str, act: Callable[[], None]) -> bytes:
    """What came of an answer during which something happens to the files."""
    with httpx.stream("GET", url, headers=made.served.headers) as response:
        stream = response.iter_bytes()
        came = bytearray(take(stream, 1_000_000))
        act()
        try:
            for chunk in stream:
                came += chunk
        except httpx.RemoteProtocolError:
            assert len(came) < int(response.headers["content-length"])
            return bytes(came)
    raise AssertionError("the answer was brought to an end")


def test_a_file_that_vanishes_in_the_middle_breaks_the_connection_off(produce: Produce) -> None:
    made = produce({"a.bin": bytes(BIG), "b.bin": b"b"})
    came = interrupted(made, made.zip, (made.place / "b.bin").unlink)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(came))


def test_a_link_that_takes_a_file_s_place_in_the_middle_breaks_the_connection_off(
    produce: Produce, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    made = produce({"a.bin": bytes(BIG), "b.bin": b"secret"})

    def swap() -> None:
        (made.place / "b.bin").unlink()
        (made.place / "b.bin").symlink_to(tmp_path / "secret")

    assert b"secret" not in interrupted(made, made.zip, swap)


def test_a_file_that_is_cut_in_the_middle_breaks_the_connection_off(produce: Produce) -> None:
    made = produce({"a.bin": bytes(BIG)})
    for url in (made.zip, made.file("a.bin")):
        with (made.place / "a.bin").open("r+b") as file:
            file.truncate(BIG)
        interrupted(made, url, lambda: os.truncate(made.place / "a.bin", 5_000_000))


def test_a_name_adds_no_header(produce: Produce) -> None:
    quoted, lines = 'a"; filename="x.exe', 'a"\r\nX-Injected: 1'
    made = produce({quoted: b"content", lines: b"more"})
    answer = made.get(made.file(quoted))
    assert (answer.status_code, answer.content) == (200, b"content")
    assert answer.headers["content-disposition"].startswith('attachment; filename="a__ filename=_x.exe"; filename*=')
    assert made.get(made.file(lines)).status_code == 404  # no address has line ends
    whole = made.get(made.zip)
    assert (whole.status_code, "x-injected" in whole.headers) == (200, False)


def test_more_than_4_gib_are_taken_up_in_the_middle_in_flat_memory(produce: Produce, database: Database) -> None:
    """The file is a hole of 4.5 GiB with words in it; the range begins in the hole and ends the zip."""
    size, word = 4_831_838_208, b"near the end"
    made = produce({"huge.bin": b"", "small.txt": b"small"})
    with (made.place / "huge.bin").open("r+b") as file:
        file.truncate(size)
        file.seek(size - 100)
        file.write(word)
    _tell_size(database, made, size)
    server = psutil.Process(made.served.process.pid)  # type: ignore[union-attr]
    before = server.memory_info().rss
    start = size - 50 * 1024**2
    head = made.get(made.zip, Range="bytes=0-99")
    answer = made.get(made.zip, Range=f"bytes={start}-", If_Range=head.headers["etag"])
    assert answer.status_code == 206
    assert server.memory_info().rss - before < 24 * 1024**2
    total = int(answer.headers["content-range"].rpartition("/")[2])
    with zipfile.ZipFile(_Tail(answer.content, total)) as archive:
        assert archive.getinfo(f"loradeck-job-{made.job.id}-adapter/huge.bin").file_size == size
        assert archive.read(f"loradeck-job-{made.job.id}-adapter/small.txt") == b"small"
    assert word in answer.content


def _tell_size(database: Database, made: Made, size: int) -> None:
    """As if it had been saved so; its checksums are beside the point."""
    with database.write() as session:
        row = session.execute(text("SELECT files FROM artifact WHERE job_id = :id"), {"id": made.job.id})
        files = json.loads(row.scalar_one())
        for file in files:
            file["crc32"] = file.get("crc32", zlib.crc32(b"small"))
            file["bytes"] = size if file["path"] == "huge.bin" else file["bytes"]
        session.execute(
            text("UPDATE artifact SET files = :files WHERE job_id = :id"),
            {"files": json.dumps(files), "id": made.job.id},
        )


class _Tail(io.RawIOBase):
    """The end of a file whose beginning nobody is to read."""

    def __init__(self, tail: bytes, total: int) -> None:
        self._tail, self._begin, self._total, self._at = tail, total - len(tail), total, 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._total}[whence] + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        assert self._at >= self._begin
        start = self._at - self._begin
        content = self._tail[start:] if size < 0 else self._tail[start : start + size]
        self._at += len(content)
        return content
