"""What a stream's reader has missed, read out of the log until it has caught up; or that it cannot be had any more."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from fastapi.sse import format_sse_event
from sqlmodel import Session, col, select

from app.core.database import Database
from app.core.events import log
from app.core.jobs.models import Job
from app.core.jobs.status import ENDED
from app.core.metrics.store import latest_values
from app.web.recent import CHUNK_BYTES, Frame

_PAGE = 500
_SNAPSHOT_JOBS = 100


@dataclass(slots=True)
class Place:
    """How far a stream has come in the log: behind `id`, of one job or of all.

    `known`: the log holds, or held, that id. `pruned`: what the reader knows to be gone.
    """

    id: int
    job_id: int | None
    known: bool = False
    pruned: int = 0


class Backlog:
    """Reads the log for one stream at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, place: Place) -> bytes:
        """The next chunk behind a place, which moves on; `reset` where what lies behind it was pruned or never was."""
        with self._database.read() as session:
            latest, pruned = log.latest_id(session), log.pruned_through(session)
            place.known = True
            if place.id > latest:
                place.id, place.pruned = latest, pruned
                return _reset(session, place, "unknown", latest)
            if place.id == 0:
                place.pruned = pruned  # who begins at the beginning takes the log as it is
            if place.id < pruned and place.pruned < pruned:
                place.pruned = pruned
                return _reset(session, place, "pruned", latest)
            return self._read_chunk(session, place, latest)

    def _read_chunk(self, session: Session, place: Place, latest: int) -> bytes:
        texts: list[bytes] = []
        size, found = 0, 0
        for event in log.iterate_after(session, place.id, job_id=place.job_id, limit=_PAGE):
            texts.append(Frame.of(event).text)
            size += len(texts[-1])
            found += 1
            place.id = event.key
            if size >= CHUNK_BYTES:
                return b"".join(texts)
        if found < _PAGE:
            place.id = latest
        return b"".join(texts)


def _reset(session: Session, place: Place, reason: str, latest: int) -> bytes:
    """Tells the reader that events are gone, and how its jobs stand now."""
    data = {"reason": reason, "latest": latest, "jobs": _snapshot(session, place.job_id)}
    fields = {"id": place.id, "job_id": place.job_id, "kind": "reset", "step": None, "time": time.time(), "data": data}
    return format_sse_event(event="reset", id=str(place.id), data_str=json.dumps(fields))


def _snapshot(session: Session, job_id: int | None) -> list[dict[str, Any]]:
    """The job that a stream is about, else those that have not ended."""
    wanted = col(Job.status).not_in(ENDED) if job_id is None else col(Job.id) == job_id
    jobs = session.exec(select(Job).where(wanted).order_by(col(Job.id)).limit(_SNAPSHOT_JOBS)).all()
    names = ("id", "name", "kind", "status", "phase", "step", "max_steps", "eta_seconds")
    return [
        {**{name: getattr(job, name) for name in names}, "metrics": latest_values(session, job.key)} for job in jobs
    ]
