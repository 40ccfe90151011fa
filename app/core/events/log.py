"""Append to and read the event log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func
from sqlmodel import Session, col, select

from app.core.events.models import Event
from app.core.events.types import EventKind


def append(
    session: Session,
    kind: EventKind,
    data: dict[str, Any],
    *,
    job_id: int | None = None,
    step: int | None = None,
    at: float | None = None,
) -> Event:
    """Add one event to the transaction; its id is given at flush."""
    event = Event(job_id=job_id, kind=kind.value, step=step, time=time.time() if at is None else at, data=data)
    session.add(event)
    return event


def read_after(session: Session, after: int, *, job_id: int | None = None, limit: int = 500) -> Sequence[Event]:
    """Events with an id above `after`, oldest first; of one job if asked."""
    query = select(Event).where(col(Event.id) > after).order_by(col(Event.id)).limit(limit)
    if job_id is not None:
        query = query.where(col(Event.job_id) == job_id)
    return session.exec(query).all()


def latest_id(session: Session) -> int:
    """The newest event's id, 0 where there is none."""
    return session.exec(select(func.max(Event.id))).one() or 0


def prune_readings(session: Session, before: float) -> None:
    """Drop GPU events older than `before`: the readings themselves are kept in their own table."""
    session.exec(delete(Event).where(col(Event.kind) == EventKind.GPU.value, col(Event.time) < before))
