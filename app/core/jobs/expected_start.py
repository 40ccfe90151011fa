"""When a job that waits for the GPU is expected to start: after what runs, and after what waits before it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session

from app.core.jobs.models import Job
from app.core.jobs.queries import find_all_awaited, gpu_occupant, queued_jobs
from app.core.jobs.queue_state import get_queue
from app.core.jobs.status import GPU_KINDS
from app.core.planning.history import foresee_seconds

_LOOKED_AT = 500  # jobs of the queue; behind them nothing is expected


@dataclass(frozen=True, slots=True)
class Start:
    """`at` is in seconds since the epoch. Not `known`: how long something before it takes is not; it is no sooner."""

    at: float
    known: bool


def expected_starts(session: Session, now: float | None = None) -> dict[int, Start]:
    """By job id, for the waiting jobs of the GPU's lane; nothing while the queue is paused.

    A job that is paused, or that waits for its model or its dataset, is left out: nobody knows when it can start.
    """
    return _foresee(session, now)[0]


def next_start(session: Session, now: float | None = None) -> Start | None:
    """Of a job that were queued now, at the end; None while the queue is paused."""
    return None if get_queue(session).paused else _foresee(session, now)[1]


def _foresee(session: Session, now: float | None) -> tuple[dict[int, Start], Start]:
    """The expected start of each job that can start, and when the last one of them will have ended."""
    at, known = now if now is not None else time.time(), True
    if get_queue(session).paused:
        return {}, Start(at, known=False)
    occupant = gpu_occupant(session)
    if occupant is not None:
        at, known = at + (occupant.eta_seconds or 0.0), occupant.eta_seconds is not None
    starts: dict[int, Start] = {}
    waiting = _can_start(session)
    for job, seconds in zip(waiting, foresee_seconds(session, waiting), strict=True):
        starts[job.key] = Start(at, known)
        at, known = at + (seconds or 0), known and seconds is not None
    return starts, Start(at, known)


def _can_start(session: Session) -> Sequence[Job]:
    waiting = queued_jobs(session, _LOOKED_AT)
    awaited = find_all_awaited(session, waiting)
    return [
        job
        for job in waiting
        if job.kind in GPU_KINDS
        and job.spec.get("device") != "cpu"  # a chat beside what has the GPU
        and not job.paused
        and awaited[job.key] is None
    ]
