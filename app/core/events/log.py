"""Append to and read the event log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import func, text
from sqlmodel import Session, col, select

from app.core.events.models import Event
from app.core.events.types import EventKind

_ROWS_AHEAD = 20
_MARKERS = select(Event).where(col(Event.job_id).is_(None), Event.kind == EventKind.PRUNED.value)


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
    return list(iterate_after(session, after, job_id=job_id, limit=limit))


def iterate_after(session: Session, after: int, *, job_id: int | None = None, limit: int = 500) -> Iterator[Event]:
    """As `read_after`, but whoever stops early has not read what he did not take (some rows ahead aside)."""
    query = select(Event).where(col(Event.id) > after).order_by(col(Event.id)).limit(limit)
    if job_id is not None:
        query = query.where(col(Event.job_id) == job_id)
    yield from session.exec(query.execution_options(yield_per=_ROWS_AHEAD))


def latest_id(session: Session) -> int:
    """The id that was given last, also where its event was pruned since; 0 where none was given."""
    given = session.connection().execute(text("SELECT seq FROM sqlite_sequence WHERE name = 'event'")).scalar()
    return int(given or 0)


def pruned_through(session: Session) -> int:
    """Up to which id events may be missing, GPU readings aside; 0 where nothing was pruned."""
    first = session.exec(select(func.min(Event.id))).one()
    gone = latest_id(session) if first is None else first - 1
    marker = session.exec(_MARKERS.order_by(col(Event.id).desc()).limit(1)).first()
    return gone if marker is None else max(gone, int(marker.data["through"]))


def mark_pruned(session: Session, through: int) -> None:
    """Say that events up to an id were dropped by rule; whoever drops them calls this in the same transaction.

    Who resumes from behind an older event is told so by the stream (`reset`).
    """
    through = max(through, pruned_through(session))
    for marker in session.exec(_MARKERS).all():
        session.delete(marker)
    append(session, EventKind.PRUNED, {"through": through})
