"""An upload above the limit is refused before it fills the disk."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.core.settings import Settings
from tests.live_server import Served, serve_thread

LIMIT = 100_000
HEAD = (
    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
    "Content-Type: multipart/form-data; boundary=x\r\n{length}\r\n\r\n"
)
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'


@pytest.fixture
def server(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    with serve_thread(settings.model_copy(update={"max_upload_bytes": LIMIT})) as server:
        yield server


def _send(server: Served, path: str, length: str, *pieces: bytes) -> str:
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(HEAD.format(path=path, port=port, token=server.token, length=length).encode())
        with suppress(BrokenPipeError, ConnectionResetError):  # it is refused while it is still being sent
            for piece in pieces:
                connection.sendall(piece)
        return connection.recv(65536).decode()


@pytest.mark.parametrize("path", ["/api/v1/datasets", "/datasets"])
def test_a_length_above_the_limit_is_refused_unread(server: Served, path: str) -> None:
    answer = _send(server, path, "Content-Length: 1000000000")
    assert answer.startswith("HTTP/1.1 413")


@pytest.mark.parametrize("path", ["/api/v1/datasets", "/datasets"])
def test_an_upload_of_unknown_length_is_refused_at_the_limit(server: Served, path: str, tmp_path: Path) -> None:
    chunk = b"x" * 50_000
    framed = f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n"
    opening = f"{len(PART):x}\r\n".encode() + PART + b"\r\n"
    answer = _send(server, path, "Transfer-Encoding: chunked", opening, *[framed] * 400)
    assert answer.startswith("HTTP/1.1 413")
    assert list((tmp_path / "home" / "uploads").iterdir()) == []
    assert list((tmp_path / "spool").iterdir()) == []


def test_an_upload_is_written_once_where_it_stays_and_goes_with_a_sender_that_breaks_off(
    server: Served, settings: Settings, tmp_path: Path
) -> None:
    port, uploads = int(server.url.rpartition(":")[2]), settings.home / "uploads"
    begun = PART + b"x" * (LIMIT - 10)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        head = HEAD.format(path="/api/v1/datasets", port=port, token=server.token, length=f"Content-Length: {LIMIT}")
        connection.sendall(head.encode() + begun[: LIMIT - 10])
        (stored,) = _once(lambda: [path for path in uploads.rglob("*") if path.is_file()])
        assert stored.stat().st_mode & 0o077 == 0
        assert list((tmp_path / "spool").iterdir()) == []
    _once(lambda: not list(uploads.iterdir()))


def _once(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 10
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value
