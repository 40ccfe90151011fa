"""The event log: ids that only grow, and reading from behind any of them."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import delete
from sqlmodel import Session, col

from app.core.database import Database
from app.core.events.log import append, latest_id, mark_pruned, pruned_through, read_after
from app.core.events.models import Event
from app.core.events.pruning import prune_readings
from app.core.events.types import EventKind


def _append(session: Session, count: int, job_id: int | None = None, kind: EventKind = EventKind.LOG) -> list[int]:
    events = [append(session, kind, {"n": n}, job_id=job_id) for n in range(count)]
    session.flush()
    return [event.key for event in events]


def _ids(events: object) -> list[int]:
    return [event.id for event in events]  # type: ignore[attr-defined]


def test_ids_grow_in_the_order_of_appending(session: Session) -> None:
    assert _append(session, 5) == [1, 2, 3, 4, 5]
    assert latest_id(session) == 5


def test_ids_are_never_used_twice(database: Database) -> None:
    """Else a reader that resumes behind a pruned id would miss events."""
    with database.write() as session:
        _append(session, 3)
    with database.write() as session:
        session.exec(delete(Event).where(col(Event.id) >= 2))
    with database.write() as session:
        assert latest_id(session) == 3
        assert _append(session, 1) == [4]
    with database.write() as session:
        session.exec(delete(Event))
    with database.write() as session:
        assert _append(session, 1) == [5]


def test_a_transaction_that_failed_leaves_no_event(database: Database) -> None:
    def fail() -> None:
        with database.write() as session:
            _append(session, 2)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.read() as session:
        assert latest_id(session) == 0


def test_reading_starts_behind_an_id(session: Session) -> None:
    _append(session, 5)
    assert _ids(read_after(session, 0)) == [1, 2, 3, 4, 5]
    assert _ids(read_after(session, 3)) == [4, 5]
    assert read_after(session, 5) == []
    assert _ids(read_after(session, 1, limit=2)) == [2, 3]


def test_reading_one_job(session: Session) -> None:
    for job in (1, 2, 1, None, 2):
        _append(session, 1, job)
    assert _ids(read_after(session, 0, job_id=2)) == [2, 5]
    assert _ids(read_after(session, 2, job_id=2)) == [5]
    assert _ids(read_after(session, 0, job_id=2, limit=1)) == [2]


def test_an_event_is_carried_whole(session: Session) -> None:
    text = "a\n\nevent: x\r\u2028 \N{SNOWMAN}"
    append(session, EventKind.SAMPLE, {"text": text}, job_id=3, step=7, at=12.5)
    session.flush()
    session.expire_all()
    (event,) = read_after(session, 0)
    assert event.to_json() == {
        "id": 1, "job_id": 3, "kind": "sample", "step": 7, "time": 12.5, "data": {"text": text},
    }  # fmt: skip


def test_time_is_now_unless_given(session: Session) -> None:
    before = time.time()
    assert before <= append(session, EventKind.LOG, {}).time <= time.time()


def test_pruning_drops_old_readings_alone(session: Session) -> None:
    for kind, at in ((EventKind.GPU, 1.0), (EventKind.LOG, 1.0), (EventKind.GPU, 9.0)):
        append(session, kind, {}, at=at)
    session.flush()
    prune_readings(session, before=5.0)
    assert [(event.kind, event.time) for event in read_after(session, 0)] == [("log", 1.0), ("gpu", 9.0)]


def test_nothing_is_said_to_be_pruned_at_first(session: Session) -> None:
    assert pruned_through(session) == 0
    _append(session, 3)
    assert pruned_through(session) == 0


def test_a_log_whose_beginning_is_gone_tells_where_it_begins(session: Session) -> None:
    _append(session, 5)
    session.exec(delete(Event).where(col(Event.id) < 4))
    assert pruned_through(session) == 3
    session.exec(delete(Event))
    assert pruned_through(session) == 5


def test_events_dropped_from_the_middle_are_told_by_the_one_newest_marker(session: Session) -> None:
    _append(session, 9)
    session.exec(delete(Event).where(col(Event.id).in_([3, 4])))
    mark_pruned(session, through=4)
    assert pruned_through(session) == 4
    session.exec(delete(Event).where(col(Event.id) == 7))
    mark_pruned(session, through=7)
    mark_pruned(session, through=2)
    assert pruned_through(session) == 7
    assert [(event.id, event.kind) for event in read_after(session, 9)] == [(12, "pruned")]


def test_readings_that_went_by_age_do_not_count_as_pruned(session: Session) -> None:
    for kind in (EventKind.LOG, EventKind.GPU, EventKind.LOG):
        append(session, kind, {}, at=1.0)
    session.flush()
    prune_readings(session, before=5.0)
    assert _ids(read_after(session, 0)) == [1, 3]
    assert pruned_through(session) == 0
