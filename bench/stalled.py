"""Readers that take nothing: what they cost the dashboard, when they are cut off, and how soon it ends all the same.

`python -m bench.stalled [--stalled 200] [--streams 100]`: a real dashboard whose log holds four megabytes. First so
many readers ask for all of it and take nothing; then so many take what comes, half as many again take nothing, and
SIGTERM comes. Prints what was seen and one JSON line; exits with 1 where a reader that takes nothing was not cut off
within 30 seconds, the end took more than five, or a stream that was read did not end whole.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.paths import DataFolder
from app.core.settings import Settings
from bench.startup_memory import free_port, get, running

EVENTS, EVENT_BYTES = 128, 32 * 1024
MOST_SECONDS_STALLED, MOST_SECONDS_TO_END = 30.0, 5.0
DEADLINE_SECONDS = 60.0
WHOLE = b"0\r\n\r\n"  # the last chunk of an HTTP/1.1 body


def fill(home: Path) -> None:
    """The log's events."""
    database = Database(Settings(home=home).effective_database_url)
    with database.write() as session:
        for _ in range(EVENTS):
            log.append(session, EventKind.LOG, {"lines": ["x" * EVENT_BYTES]})
    database.engine.dispose()


def ask(port: int, token: str, query: str, buffer: int = 0) -> socket.socket:
    """One stream. `buffer`: bytes that this side holds unread."""
    connection = socket.socket()
    if buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(DEADLINE_SECONDS)
    connection.connect(("127.0.0.1", port))
    head = f"GET /api/v1/events{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def count_open(web: psutil.Process) -> int:
    """Connections that the dashboard holds."""
    return sum(each.status == psutil.CONN_ESTABLISHED for each in web.net_connections("tcp"))


def measure_stalled(web: psutil.Process, port: int, token: str, count: int) -> dict[str, float]:
    """Memory beside so many, at its highest, and seconds until all are cut off."""
    before, highest = web.memory_info().rss, 0
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(ask(port, token, "?after=0", buffer=4096))
        began = time.monotonic()
        while count_open(web) and time.monotonic() < began + DEADLINE_SECONDS:
            highest = max(highest, web.memory_info().rss)
            time.sleep(0.2)
        return {
            "stalled": count,
            "memory_more_mb": round((highest - before) / 1e6, 1),
            "cut_off_after_seconds": round(time.monotonic() - began, 1),
        }


def measure_end(process: subprocess.Popen[bytes], port: int, token: str, count: int) -> dict[str, float]:
    """Seconds from SIGTERM to the end, with so many streams that are read and half as many that are not."""
    with ExitStack() as stack:
        for _ in range(count // 2):
            stack.enter_context(ask(port, token, "?after=0", buffer=4096))
        streams = [stack.enter_context(ask(port, token, "")) for _ in range(count)]
        received = [each.recv(4096) for each in streams]
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=DEADLINE_SECONDS)
        seconds = time.monotonic() - began
        whole = sum(_read_on(each, head).endswith(WHOLE) for each, head in zip(streams, received, strict=True))
    return {"streams": count, "ended_whole": whole, "end_seconds": round(seconds, 2)}


def _read_on(connection: socket.socket, head: bytes) -> bytes:
    received = head
    while more := connection.recv(1 << 16):
        received += more
    return received


def run(home: Path, stalled: int, streams: int) -> dict[str, float]:
    """One dashboard, from its start to its end."""
    port = free_port()
    with running(home, "serve", "--no-worker", "--port", str(port)) as process:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while get(port, "/api/v1/health") != 200:
            if time.monotonic() > deadline:
                raise SystemExit((home / "bench.log").read_text()[-4000:])
            time.sleep(0.05)
        fill(home)
        token = json.loads(DataFolder(home).server_json.read_text())["token"]
        web = psutil.Process(process.pid)
        return {**measure_stalled(web, port, token, stalled), **measure_end(process, port, token, streams)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Readers that take nothing, and the end beside them.")
    parser.add_argument("--stalled", type=int, default=200)
    parser.add_argument("--streams", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loradeck-bench-") as home:
        seen = run(Path(home), asked.stalled, asked.streams)
    print("  ".join(f"{name} {value}" for name, value in seen.items()))
    print(json.dumps({"benchmark": "stalled", **seen}))
    late = seen["cut_off_after_seconds"] > MOST_SECONDS_STALLED or seen["end_seconds"] > MOST_SECONDS_TO_END
    if late or seen["ended_whole"] < seen["streams"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
