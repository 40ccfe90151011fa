"""Roll memory readings up as they age: one for 10 seconds, then one for a minute, without losing a peak.

A reading that was rolled up looks like a sample whose values are the largest of its time, so that whoever looks for a
peak finds it; `rolled` holds how many samples went in, and their smallest and mean values where those differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, update
from sqlmodel import Session, col, select

from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from app.core.metrics.models import MemoryReading

KEPT = 0  # `seconds` of a sample that is never rolled up
_BUCKETS = 10  # in a transaction, so that it is a matter of milliseconds
_LAST_SECONDS = 60.0  # of a failed job: its autopsy shows them as they were read
_HOST = "host"

Place = tuple[str, str]  # ("host" or a device's index, name)
Weighed = Sequence[tuple[float, int]]


def find_due(session: Session, seconds: int, to: int, before: float) -> float | None:
    """Up to when readings of `seconds` can be rolled up into whole buckets of `to`; None where none can.

    One look into an index, however many readings there are.
    """
    oldest = session.exec(select(func.min(MemoryReading.time)).where(MemoryReading.seconds == seconds)).one()
    last = before // to * to
    return None if oldest is None or oldest >= last else min(oldest // to * to + _BUCKETS * to, last)


def roll_up(session: Session, seconds: int, to: int, before: float) -> int:
    """Roll up the oldest readings of `seconds` that are due; returns how many went in."""
    end = find_due(session, seconds, to, before)
    if end is None:
        return 0
    due = (col(MemoryReading.seconds) == seconds, col(MemoryReading.time) < end)
    rows = session.exec(
        select(MemoryReading).where(*due).order_by(col(MemoryReading.time), col(MemoryReading.id))
    ).all()
    kept = _keep_last_minutes(session, rows)
    buckets: dict[tuple[int | None, float], list[MemoryReading]] = defaultdict(list)
    for row in rows:
        if row.key not in kept:
            buckets[row.job_id, row.time // to].append(row)
    session.exec(delete(MemoryReading).where(*due))
    for (job_id, _), bucket in buckets.items():
        data = merge([row.data for row in bucket])
        session.add(MemoryReading(job_id=job_id, time=bucket[-1].time, seconds=to, data=data))
    return len(rows)


def _keep_last_minutes(session: Session, rows: Iterable[MemoryReading]) -> set[int]:
    """Ids of the readings of failed jobs' ends, which stay as they are."""
    jobs = {row.job_id for row in rows if row.job_id is not None}
    failed = session.exec(select(Job.id).where(col(Job.id).in_(jobs), Job.status == JobStatus.FAILED)).all()
    kept: set[int] = set()
    for job_id in failed:
        last = session.exec(select(func.max(MemoryReading.time)).where(MemoryReading.job_id == job_id)).one()
        kept |= {row.key for row in rows if row.job_id == job_id and row.time >= last - _LAST_SECONDS}
    session.exec(update(MemoryReading).where(col(MemoryReading.id).in_(kept)).values(seconds=KEPT))
    return kept


def merge(readings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several readings as one, oldest first: `find_peak`, with the smallest and the mean values beside it."""
    flat = [_flatten(reading) for reading in readings]
    weights = [reading.get("rolled", {}).get("readings", 1) for reading in readings]
    top = _fold(flat, weights, _largest)
    low = [each | _placed(reading, "min") for each, reading in zip(flat, readings, strict=True)]
    mean = [each | _placed(reading, "mean") for each, reading in zip(flat, readings, strict=True)]
    rolled = {
        "readings": sum(weights),
        "min": _nested(_without(_fold(low, weights, _smallest), top)),
        "mean": _nested(_without(_fold(mean, weights, _mean), top)),
    }
    return {**find_peak(readings), "rolled": rolled}


def find_peak(readings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The largest of each value; what could not be read is left out, and null where nothing could."""
    parts = _nested(_fold([_flatten(reading) for reading in readings], [1] * len(readings), _largest))
    host = parts.pop(_HOST, None)
    available = any(reading["available"] for reading in readings)
    return {"available": available, "devices": list(parts.values()), "host": host}


def _flatten(reading: Mapping[str, Any]) -> dict[Place, Any]:
    devices = {str(device.get("index", number)): device for number, device in enumerate(reading["devices"])}
    parts = {**devices, **({_HOST: reading["host"]} if reading.get("host") is not None else {})}
    return {(part, name): value for part, values in parts.items() for name, value in values.items()}


def _nested(flat: Mapping[Place, Any]) -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = {}
    for (part, name), value in flat.items():
        parts.setdefault(part, {})[name] = value
    return parts


def _placed(reading: Mapping[str, Any], what: str) -> dict[Place, Any]:
    parts = reading.get("rolled", {}).get(what, {})
    return {(part, name): value for part, values in parts.items() for name, value in values.items()}


def _fold(
    flat: Sequence[Mapping[Place, Any]], weights: Sequence[int], pick: Callable[[Weighed], float]
) -> dict[Place, Any]:
    """One value for each place: `pick` of its numbers, else the newest (a device's name), else None."""
    found: dict[Place, list[tuple[Any, int]]] = {}
    for values, weight in zip(flat, weights, strict=True):
        for place, value in values.items():
            found.setdefault(place, []).extend([(value, weight)] if value is not None else [])
    return {place: _pick(values, pick) for place, values in found.items()}


def _pick(values: Weighed, pick: Callable[[Weighed], float]) -> Any:
    if not values:
        return None
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in values)
    return pick(values) if numbers else values[-1][0]


def _largest(values: Weighed) -> float:
    return max(value for value, _ in values)


def _smallest(values: Weighed) -> float:
    return min(value for value, _ in values)


def _mean(values: Weighed) -> float:
    return round(sum(value * weight for value, weight in values) / sum(weight for _, weight in values), 3)


def _without(values: Mapping[Place, Any], top: Mapping[Place, Any]) -> dict[Place, Any]:
    return {place: value for place, value in values.items() if value != top[place]}
