"""Notices out of what the event log says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from sqlmodel import Session

from app.core.events.models import Event
from app.core.events.types import EventKind
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind, JobStatus
from app.core.metrics.store import read_series
from app.core.notices.models import Notice, NoticeKind

_TOLD_WHEN_DONE = frozenset({JobKind.TRAIN, JobKind.MERGE, JobKind.EXPORT})
_TOLD_WHEN_FAILED = _TOLD_WHEN_DONE | {JobKind.IMPORT, JobKind.ADAPTER}
_RISES = 3  # evals in a row with a higher loss than the one before
_MOST_TITLE, _MOST_TEXT = 250, 1000


def notices_of(session: Session, event: Event) -> Iterator[Notice]:
    """What is worth telling of an event; nothing of a job that was cancelled, or that is gone."""
    job = session.get(Job, event.job_id) if event.job_id is not None else None
    if job is None:
        return
    if event.kind == EventKind.FINISHED:
        yield from _ended(job, event)
    elif event.kind == EventKind.STATUS:
        yield from _held_up(job, event)
    elif event.kind == EventKind.METRIC and "eval_loss" in event.data:
        yield from _rising(session, job, event)


def _ended(job: Job, event: Event) -> Iterator[Notice]:
    status, summary = event.data["status"], event.data.get("summary") or {}
    seconds = event.time - job.started_at if job.started_at else None
    data = {
        "status": status,
        "job": job.name,
        "eval_loss": summary.get("eval_loss"),
        "train_loss": summary.get("train_loss"),
        "steps": summary.get("steps"),
        "seconds": None if seconds is None else round(seconds),
    }
    if status == JobStatus.COMPLETED and job.kind in _TOLD_WHEN_DONE:
        yield _notice(NoticeKind.FINISHED, f"end:{event.id}", job, "is done", _figures(data), data, event.time)
    elif status == JobStatus.FAILED and job.kind in _TOLD_WHEN_FAILED:
        error = event.data.get("error") or {}
        text = " ".join(filter(None, (error.get("message"), error.get("advice"))))
        data |= {"error": error.get("kind")}
        yield _notice(
            NoticeKind.FAILED, f"end:{event.id}", job, "failed", text or "No reason is known.", data, event.time
        )


def _held_up(job: Job, event: Event) -> Iterator[Notice]:
    """The job as it is now: what has passed meanwhile is not told any more."""
    held, reason = job.held_up or {}, job.pause_reason or {}
    if held.get("kind") == "disk_full":
        about = f"disk:{job.id}:{held.get('since')}"
        yield _notice(NoticeKind.DISK_FULL, about, job, "waits: the disk is full", held["message"], {}, event.time)
    elif held:
        about = f"held:{job.id}:{held.get('since')}"
        data = {"guard": held["kind"]}
        yield _notice(NoticeKind.GUARD, about, job, "seems to hang", held["message"], data, event.time)
    elif job.paused and reason.get("kind") == "disk_full":
        about = f"disk:{job.id}:attempt {job.attempts}"
        text = " ".join(filter(None, (reason["message"], reason.get("advice"))))
        yield _notice(NoticeKind.DISK_FULL, about, job, "is paused: the disk is full", text, {}, event.time)


def _rising(session: Session, job: Job, event: Event) -> Iterator[Notice]:
    """Told once for each attempt."""
    series = read_series(session, job.key, "eval_loss").get("eval_loss", [])[-_RISES - 1 :]
    losses = [(step, value) for step, value in series if value is not None]
    if len(losses) <= _RISES or not all(after > before for (_, before), (_, after) in pairwise(losses)):
        return
    text = f"The eval loss has risen {_RISES} times in a row, from {losses[0][1]:.4g} at step {losses[0][0]} to "
    text += f"{losses[-1][1]:.4g} at step {losses[-1][0]}: it may be learning the rows by heart."
    data = {"guard": "overfit", "eval_loss": losses[-1][1]}
    about = f"overfit:{job.id}:attempt {job.attempts}"
    yield _notice(NoticeKind.GUARD, about, job, "may be overfitting", text, data, event.time)


def _notice(kind: NoticeKind, about: str, job: Job, what: str, text: str, data: dict[str, Any], at: float) -> Notice:
    name = f"{_KINDS.get(job.kind, job.kind.value)} #{job.id} {' '.join(job.name.split())}"
    title = f"{name[: _MOST_TITLE - len(what) - 1]} {what}"
    text = text[:_MOST_TEXT]
    return Notice(about=about, kind=kind, job_id=job.id, title=title, text=text, data=data, created_at=at)


_KINDS = {JobKind.TRAIN: "Training", JobKind.MERGE: "Merge", JobKind.EXPORT: "Export", JobKind.IMPORT: "Import"}


def _figures(data: dict[str, Any]) -> str:
    """As in `eval loss 1.061, loss 0.98, 402 steps, 35m 10s`."""
    losses = [(label, data[key]) for label, key in (("eval loss", "eval_loss"), ("loss", "train_loss"))]
    parts = [f"{label} {value:.4g}" for label, value in losses if value is not None]
    if data["steps"]:
        parts.append(f"{data['steps']:,} steps")
    if data["seconds"] is not None:
        parts.append(_duration(data["seconds"]))
    return ", ".join(parts)


def _duration(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {left:02d}s" if minutes else f"{left}s"
