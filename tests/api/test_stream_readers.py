"""Readers that stall, come back too late, or are too many: none costs the others anything, or the server its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from fastapi import FastAPI
from sqlalchemy import delete
from sqlmodel import col

from app.core.database import Database
from app.core.events import log
from app.core.events.models import Event
from app.core.events.types import EventKind
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind, JobStatus
from app.core.settings import Settings
from app.web import sse, tailer
from app.web.tailer import EventTailer
from tests.api.raw_streams import many, open_raw, read_until
from tests.api.sse import ids, open_stream, take
from tests.live_server import Served, serve_process, serve_thread

MIB = 2**20


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> list[FastAPI]:
    """The application that `server` runs."""
    apps: list[FastAPI] = []
    create = "tests.live_server.create_app"
    from app.main import create_app

    monkeypatch.setattr(create, lambda settings: apps.append(create_app(settings)) or apps[-1])
    return apps


@pytest.fixture
def server(app: list[FastAPI], settings: Settings, database: Database) -> Iterator[Served]:
    """A server whose log holds ten events."""
    _append(database, 10)
    with serve_thread(settings) as server:
        yield server


@pytest.fixture
def events(server: Served, app: list[FastAPI]) -> EventTailer:
    """The tailer of the server."""
    running: EventTailer = app[0].state.tailer
    return running


def _append(database: Database, count: int, size: int = 1, kind: EventKind = EventKind.LOG) -> None:
    with database.write() as session:
        for _ in range(count):
            log.append(session, kind, {"lines": ["x" * size]}, job_id=7)


def _wait_for(condition: Callable[..., bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_id_of_another_log_is_a_reset_and_new_events_follow(server: Served, database: Database, start: int) -> None:
    with open_stream(server, {"Last-Event-ID": "9" * 5000}, job=7) as messages:
        (reset,) = take(messages, 1)
        assert (reset.event, reset.id) == ("reset", str(start))
        assert reset.data["data"]["reason"] == "unknown"
        assert [(job["name"], job["status"]) for job in reset.data["data"]["jobs"]] == [("seven", "running")]
        _append(database, 1)
        assert ids(take(messages, 1)) == [start + 1]


@pytest.fixture
def start(server: Served, database: Database) -> int:
    """The newest event's id; its job trains."""
    with database.write() as session:
        session.add(Job(id=7, name="seven", kind=JobKind.TRAIN, status=JobStatus.RUNNING, created_at=0.0))
    with database.read() as session:
        return log.latest_id(session)


def test_a_pruned_id_is_a_reset_and_what_is_left_follows(
    server: Served, events: EventTailer, database: Database, start: int
) -> None:
    with database.write() as session:
        session.exec(delete(Event).where(col(Event.id) < start - 2))
    events._recent.floor = events._recent.last  # as after a restart: nothing is held
    with open_stream(server, {"Last-Event-ID": str(start - 6)}) as messages:
        reset, *left = take(messages, 4)
    assert (reset.event, reset.id, reset.data["data"]["reason"]) == ("reset", str(start - 6), "pruned")
    assert ids(left) == [start - 2, start - 1, start]


def test_a_reader_that_takes_nothing_is_cut_off_and_others_get_all(
    server: Served, events: EventTailer, database: Database, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailer, "STALLED_SECONDS", 1.0)
    monkeypatch.setattr(tailer, "_LOOK_SECONDS", 0.05)
    with many(server, 5, f"?after={start}", buffer=4096), open_raw(server, f"?after={start}") as reader:
        read_until(reader, b"heartbeat")
        _wait_for(lambda: len(events._followers) == 6)
        _append(database, 12, size=MIB)
        assert _ids(read_until(reader, b"\nid: %d\n" % (start + 12))) == list(range(start + 1, start + 13))
        _wait_for(lambda: len(events._followers) == 1)


def test_a_stalled_reader_is_cut_off_within_half_a_minute() -> None:
    assert tailer.STALLED_SECONDS + tailer._LOOK_SECONDS <= 30


def test_a_slow_reader_that_goes_on_gets_everything_in_order(
    server: Served, events: EventTailer, database: Database, start: int
) -> None:
    with open_raw(server, f"?after={start}", buffer=65536) as connection:
        read_until(connection, b"heartbeat")
        for count in range(2, 26, 2):
            _append(database, 2, size=MIB // 4)
            _wait_for(lambda wanted=start + count: events._recent.last == wanted)
        received = read_until(connection, b"\nid: %d\n" % (start + 24))
    assert events._recent.floor < start  # nothing came out of the log
    assert _ids(received) == list(range(start + 1, start + 25))


def _ids(received: bytes) -> list[int]:
    return [int(line[4:]) for line in received.split(b"\n") if line.startswith(b"id: ")]


def test_a_reader_of_http_1_0_gets_no_chunks(server: Served, database: Database, start: int) -> None:
    with open_raw(server, version="1.0") as connection:
        read_until(connection, b"data: {}")
        _append(database, 1)
        received = read_until(connection, b"\n\n")
    assert received.strip().startswith(b"event: log\n")


def test_readings_alone_go_out_together(
    server: Served, events: EventTailer, database: Database, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailer, "PATIENCE_SECONDS", 3600.0)
    with open_stream(server, after=start) as messages:
        assert next(messages).event == "heartbeat"
        _append(database, 2, kind=EventKind.GPU)
        _wait_for(lambda: events._recent.last == start + 2)
        assert events._spread == start
        _append(database, 1)
        assert ids(take(messages, 3)) == [start + 1, start + 2, start + 3]
        _append(database, 1, kind=EventKind.GPU)
        monkeypatch.setattr(tailer, "PATIENCE_SECONDS", 0.0)
        assert ids(take(messages, 1)) == [start + 4]


def test_a_browsers_stream_too_many_ends_where_the_log_ends(server: Served, start: int) -> None:
    name = f"{sse.BROWSER_HEADER}: one"
    query = f"?after={start - 1}"
    streams = [open_raw(server, query, name) for _ in range(sse.STREAMS_PER_BROWSER)]
    for each in streams:
        read_until(each, b"id: ")
    headers = {**server.headers, sse.BROWSER_HEADER: "one"}
    url = f"{server.url}/api/v1/events{query}"
    assert f"id: {start}\n" in httpx.get(url, headers=headers, trust_env=False).text  # else the read times out
    with open_stream(server, {sse.BROWSER_HEADER: "another"}, after=start - 1) as messages:
        assert ids(take(messages, 1)) == [start]
    for each in streams:
        each.close()


def test_two_hundred_stalled_readers_cost_little_memory_and_no_time_at_the_end(tmp_path: Path) -> None:
    """Each asks for four mebibytes and takes none of them."""
    with serve_process(tmp_path / "served") as server:
        assert server.process is not None
        database = Database(Settings(home=server.home).effective_database_url)
        _append(database, 128, size=MIB // 32)
        database.engine.dispose()
        web = psutil.Process(server.process.pid)
        with open_raw(server, "?after=0") as reader:
            read_until(reader, b"\nid: 128\n")
        before = web.memory_info().rss
        with many(server, 200, "?after=0", buffer=4096), many(server, 100) as quiet:
            for each in quiet:
                read_until(each, b"heartbeat")
            time.sleep(1)
            assert web.memory_info().rss - before < 60 * MIB
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(timeout=20) == 0
            assert time.monotonic() - began < 12, "it waits for none of them; bench.stalled has the figure"
            for each in quiet:
                rest = b"\n" + read_until(each, b"\0")  # the greeting may have been read to its end
                assert rest.endswith(b"\n0\r\n\r\n")  # whole, not cut
