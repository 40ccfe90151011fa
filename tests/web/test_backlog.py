"""What a reader has missed comes out of the log; what the log no longer holds is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from sqlalchemy import delete
from sqlmodel import col

from app.core.database import Database
from app.core.events import log
from app.core.events.models import Event
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from app.core.metrics.store import put_metrics
from app.web import backlog
from app.web.backlog import Backlog, Place


def _append(database: Database, *job_ids: int | None, size: int = 1) -> None:
    with database.write() as session:
        for job_id in job_ids:
            log.append(session, EventKind.LOG, {"lines": ["x" * size]}, job_id=job_id)


def _drop(database: Database, *ids: int, mark: bool = True) -> None:
    with database.write() as session:
        session.exec(delete(Event).where(col(Event.id).in_(ids)))
        if mark:
            log.mark_pruned(session, max(ids))


def _ids(chunk: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"^id: (\d+)$", chunk, re.MULTILINE)]


def _reset(chunk: bytes) -> dict[str, object]:
    head, data, number, *rest = chunk.decode().split("\n")
    assert (head, rest) == ("event: reset", ["", ""])
    message = json.loads(data.removeprefix("data: "))
    assert number == f"id: {message['id']}"
    assert set(message) == {"id", "job_id", "kind", "step", "time", "data"}
    assert message["kind"] == "reset"
    return {"id": message["id"], "job_id": message["job_id"], **message["data"]}


def test_a_place_moves_to_the_logs_end(database: Database) -> None:
    _append(database, 1, 2, 1, None)
    place = Place(1, None)
    assert _ids(Backlog(database).read(place)) == [2, 3, 4]
    assert (place.id, place.known) == (4, True)
    assert Backlog(database).read(place) == b""


def test_a_jobs_place_passes_what_belongs_to_others(database: Database) -> None:
    _append(database, 1, 2, 1, None)
    place = Place(0, 1)
    assert _ids(Backlog(database).read(place)) == [1, 3]
    assert place.id == 4


@pytest.mark.parametrize("job_id", [None, 1])
def test_pages_and_large_events_lose_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch, job_id: int | None
) -> None:
    monkeypatch.setattr(backlog, "_PAGE", 7)
    monkeypatch.setattr(backlog, "CHUNK_BYTES", 1000)
    _append(database, *[1, 1, 2] * 10)
    _append(database, *[1, 2] * 5, size=400)
    place, chunks = Place(0, job_id), []
    while chunk := Backlog(database).read(place):
        chunks.append(_ids(chunk))
        assert len(chunk) < 1000 + 600
    wanted = [n for n in range(1, 41) if job_id is None or (n % 3 if n <= 30 else n % 2)]
    assert [number for chunk in chunks for number in chunk] == wanted
    assert len(chunks) >= 5


def test_an_id_that_was_never_given_is_answered_by_a_reset_to_the_end(database: Database) -> None:
    _append(database, 1, 1)
    place = Place(3, None)
    answer = _reset(Backlog(database).read(place))
    assert answer == {"id": 2, "job_id": None, "reason": "unknown", "latest": 2, "jobs": []}
    _append(database, 1)
    assert _ids(Backlog(database).read(place)) == [3]


def test_the_last_id_is_known_though_its_event_is_gone(database: Database) -> None:
    _append(database, 1, 1, 1)
    _drop(database, 3, mark=False)
    assert Backlog(database).read(Place(3, None)) == b""


@pytest.mark.parametrize("mark", [False, True], ids=["beginning", "by rule"])
def test_a_pruned_id_is_answered_by_a_reset_and_what_is_left_follows(database: Database, mark: bool) -> None:
    _append(database, *[1] * 6)
    _drop(database, *((2, 4) if mark else (1, 2, 3, 4)), mark=mark)
    latest = 7 if mark else 6
    place = Place(2, None)
    answer = _reset(Backlog(database).read(place))
    assert answer == {"id": 2, "job_id": None, "reason": "pruned", "latest": latest, "jobs": []}
    assert _ids(Backlog(database).read(place)) == [*([3] if mark else []), *range(5, latest + 1)]


def test_what_was_pruned_before_ones_place_is_no_reset(database: Database) -> None:
    _append(database, *[1] * 6)
    _drop(database, 1, 2, 4)
    assert _ids(Backlog(database).read(Place(4, None))) == [5, 6, 7]


def test_who_begins_at_the_beginning_gets_what_is_left_without_a_reset(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_PAGE", 2)
    _append(database, *[1] * 6)
    _drop(database, 2, 5)
    place = Place(0, None)
    assert [_ids(Backlog(database).read(place)) for _ in range(4)] == [[1, 3], [4, 6], [7], []]


def test_a_slow_reader_is_told_when_pruning_overtakes_it(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "_PAGE", 2)
    _append(database, *[1] * 8)
    place = Place(0, None)
    assert _ids(Backlog(database).read(place)) == [1, 2]
    _drop(database, 3, 4, 5)
    assert _reset(Backlog(database).read(place))["reason"] == "pruned"
    assert _ids(Backlog(database).read(place)) == [6, 7]


def test_a_reset_shows_how_the_jobs_stand(database: Database, make_job: Callable[..., Job]) -> None:
    first, second, ended = make_job("first"), make_job("second"), make_job("ended")
    with database.write() as session:
        job = queue.get_job(session, first.key)
        queue.advance(session, job, JobStatus.STARTING)
        queue.advance(session, job, JobStatus.RUNNING, phase="train", step=4, max_steps=9, eta_seconds=2.5)
        put_metrics(session, job.key, 4, 1.0, {"loss": 1.25})
        queue.advance(session, queue.get_job(session, ended.key), JobStatus.CANCELLED)
    answer = _reset(Backlog(database).read(Place(10**6, None)))
    running = {
        "id": first.key, "name": "first", "kind": "train", "status": "running", "phase": "train", "step": 4,
        "max_steps": 9, "eta_seconds": 2.5, "metrics": {"loss": 1.25},
    }  # fmt: skip
    assert answer["jobs"][0] == running  # type: ignore[index]
    assert [job["name"] for job in answer["jobs"]] == ["first", "second"]  # type: ignore[attr-defined]
    of_one = _reset(Backlog(database).read(Place(10**6, ended.key)))
    assert [(job["name"], job["status"]) for job in of_one["jobs"]] == [("ended", "cancelled")]  # type: ignore[attr-defined]
    assert of_one["job_id"] == ended.key
    assert second.key
