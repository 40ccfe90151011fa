"""The rules of retention on the page of settings."""

from __future__ import annotations

from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.metrics.models import MemoryReading


def test_says_what_is_kept_and_what_that_has_saved(client: TestClient, database: Database) -> None:
    with database.write() as session:
        session.add_all(MemoryReading(time=float(n), seconds=60, data={}) for n in range(3))
        event = log.append(session, EventKind.PHASE, {"phase": "load"})
        session.flush()
        session.delete(event)
    page = client.get("/settings").text
    assert "older than 1 hour are rolled up into one for 10 seconds" in page
    assert "3 rows stand for up to 180 readings" in page
    assert "LORADECK_KEEP_EVENTS_DAYS" in page
    assert "1 of 1 events are gone" in page
