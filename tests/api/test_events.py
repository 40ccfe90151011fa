"""The live stream over a real server: nothing is missed, nothing comes twice, and it lets the server go."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import Session

from app.core.database import Database
from app.core.events import log
from app.core.events.models import Event
from app.core.events.types import EventKind
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind, JobStatus
from app.core.settings import Settings
from app.web import backlog, tailer
from tests.api.sse import ids, open_stream, take
from tests.live_server import Served, serve_process, serve_thread


@pytest.fixture
def server(settings: Settings, database: Database) -> Iterator[Served]:
    """A server whose log holds an event already."""
    _append(database, None)
    with serve_thread(settings) as server:
        yield server


@pytest.fixture
def start(server: Served, database: Database) -> int:
    """The newest event's id before a test."""
    assert server.url
    with database.read() as session:
        return log.latest_id(session)


def _append(database: Database, *job_ids: int | None) -> None:
    """As the worker does: from a connection of its own."""
    with database.write() as session:
        for job_id in job_ids:
            log.append(session, EventKind.LOG, {"lines": [f"of {job_id}"]}, job_id=job_id)


def test_a_stream_greets_with_a_heartbeat_and_is_not_buffered(server: Served) -> None:
    with httpx.stream("GET", f"{server.url}/api/v1/events", headers=server.headers, trust_env=False) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert next(response.iter_text()).startswith("event: heartbeat\n")


def test_events_behind_an_id_are_replayed_and_new_ones_follow(server: Served, start: int, database: Database) -> None:
    _append(database, 1, 2, None)
    with open_stream(server, after=start + 1) as messages:
        assert ids(take(messages, 2)) == [start + 2, start + 3]
        _append(database, 3)
        (live,) = take(messages, 1)
    assert (live.event, live.id) == ("log", str(start + 4))
    assert live.data == {
        "id": start + 4, "job_id": 3, "kind": "log", "step": None, "time": live.data["time"],
        "data": {"lines": ["of 3"]},
    }  # fmt: skip


def test_a_reconnecting_browser_resumes_behind_its_last_event(server: Served, start: int, database: Database) -> None:
    _append(database, 1, 2, 3)
    with open_stream(server, {"Last-Event-ID": str(start + 2)}, after=start) as messages:
        assert ids(take(messages, 1)) == [start + 3]


def test_an_id_that_is_no_number_is_not_taken_for_one(server: Served, start: int, database: Database) -> None:
    _append(database, 1)
    with open_stream(server, {"Last-Event-ID": "x"}, after=start) as messages:
        assert ids(take(messages, 1)) == [start + 1]


def test_without_an_id_only_new_events_come(server: Served, start: int, database: Database) -> None:
    _append(database, 1)
    time.sleep(0.5)  # until the tailer has passed it
    with open_stream(server) as messages:
        assert next(messages).event == "heartbeat"
        _append(database, 2)
        assert ids(take(messages, 1)) == [start + 2]


def test_a_jobs_stream_begins_with_its_first_event_and_holds_no_other(
    server: Served, start: int, database: Database
) -> None:
    with database.write() as session:
        session.add(Job(id=7, name="seven", kind=JobKind.TRAIN, status=JobStatus.RUNNING, created_at=0.0))
    _append(database, 7, 8, 7, None)
    with open_stream(server, job=7) as messages:
        assert ids(take(messages, 2)) == [start + 1, start + 3]
        _append(database, 8, None, 7)
        assert ids(take(messages, 1)) == [start + 7]


def test_nothing_is_missed_or_doubled_while_events_arrive_and_the_stream_is_cut(
    server: Served, start: int, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round reads a part and resumes behind it, while another connection appends in bursts."""
    monkeypatch.setattr(backlog, "_PAGE", 7)
    bursts, burst = 60, 5
    total = bursts * burst

    def write() -> None:
        for _ in range(bursts):
            _append(database, *[1] * burst)
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[int] = []
    while len(seen) < total:
        last = seen[-1] if seen else start
        with open_stream(server, {"Last-Event-ID": str(last)}) as messages:
            seen += ids(take(messages, min(13 + len(seen) % 40, total - len(seen))))
    writer.join()
    assert seen == list(range(start + 1, start + total + 1))


def test_many_watchers_see_the_same(server: Served, start: int, database: Database) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(open_stream(server, after=start)) for _ in range(8)]
        _append(database, *range(20))
        for messages in streams:
            assert ids(take(messages, 20)) == list(range(start + 1, start + 21))


@pytest.mark.parametrize(
    "line",
    [
        "a\n\nevent: finished\ndata: {}",
        "a\r\rid: 99999",
        "a\r\n\r\ndata: x",
        "\u2028\u2029\x85\x0b\x0c",
        "\N{SNOWMAN}\0",
    ],
    ids=["lf", "cr", "crlf", "separators", "unicode"],
)
def test_a_log_line_stays_one_event(server: Served, start: int, database: Database, line: str) -> None:
    with database.write() as session:
        log.append(session, EventKind.LOG, {"lines": [line]})
        log.append(session, EventKind.STATUS, {})
    with open_stream(server, after=start) as messages:
        first, second = take(messages, 2)
    assert (first.event, first.data["data"]) == ("log", {"lines": [line]})
    assert (second.event, ids([first, second])) == ("status", [start + 1, start + 2])


def test_an_idle_stream_beats(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailer, "HEARTBEAT_SECONDS", 0.1)
    with open_stream(server) as messages:
        beats = [next(messages) for _ in range(4)]
    assert [(beat.event, beat.id, beat.data) for beat in beats] == [("heartbeat", None, {})] * 4


def test_a_failure_while_reading_is_logged_and_costs_no_stream_an_event(
    server: Served,
    start: int,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures: list[int] = []
    read_after = log.read_after

    def fail(session: Session, after: int, **options: Any) -> Sequence[Event]:
        if len(failures) < 3:
            failures.append(after)
            raise ValueError("a row that cannot be read")
        return read_after(session, after, **options)

    with open_stream(server) as messages:
        assert next(messages).event == "heartbeat"
        monkeypatch.setattr(log, "read_after", fail)
        _append(database, 1)
        assert ids(take(messages, 1)) == [start + 1]
    assert failures == [start] * 3
    assert "a row that cannot be read" in caplog.text


@pytest.mark.parametrize("query", ["after=-1", "after=x", f"after={2**63}", "job=0", f"job={2**63}", "job=x"])
def test_a_place_that_cannot_be_is_refused(server: Served, query: str) -> None:
    response = httpx.get(f"{server.url}/api/v1/events?{query}", headers=server.headers, trust_env=False)
    assert response.status_code == 422
    assert response.json()["error"]["field"] == query.partition("=")[0]


def test_the_server_ends_within_seconds_though_streams_are_open(tmp_path: Path) -> None:
    with serve_process(tmp_path / "served") as server, ExitStack() as stack:
        streams = [stack.enter_context(open_stream(server, after=0)) for _ in range(5)]
        for messages in streams:
            assert next(messages).event == "heartbeat"
        began = time.monotonic()
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        for messages in streams:
            for _message in messages:
                pass  # a stream that is cut without its end raises here
        assert server.process.wait(timeout=10) == 0
        assert time.monotonic() - began < 5
        assert not (server.home / "server.json").exists()
