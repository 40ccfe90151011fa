"""The data that static/charts draws: columns, so that an answer carries each name once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field
from sqlmodel import Session

from app.core.events.log import latest_id
from app.core.jobs.models import Job
from app.core.metrics.readings import OF_DEVICE, OF_HOST, read_columns
from app.core.metrics.series import Axis, Bucket, find_range, find_step, read_buckets, tokens_at

MAX_SERIES = 30


class SeriesQuery(BaseModel):
    """Which part of which series, how fine."""

    names: str = Field(min_length=1, max_length=2000, description="Comma-separated names of series.")
    x: Axis = Axis.STEP
    start: float | None = Field(None, alias="from", allow_inf_nan=False, description="First place on x.")
    end: float | None = Field(None, alias="to", allow_inf_nan=False, description="Last place on x.")
    buckets: int = Field(1000, ge=10, le=4000, description="At most about so many for each series.")


SeriesDep = Annotated[SeriesQuery, Query()]


def read_chart(session: Session, job: Job, query: SeriesQuery) -> dict[str, Any]:
    """{job, x, after, series: {name: {x, step, time, mean, min, max, last, points, missing}}}.

    A series without a point in the range is left out; `after` is the newest event that the answer knows of.
    """
    names = list(dict.fromkeys(filter(None, query.names.split(","))))[:MAX_SERIES]
    steps = {name: _steps(session, job.key, name, query) for name in names}
    found = {
        name: _columns(session, job.key, read_buckets(session, job.key, name, *part, query.buckets), query.x)
        for name, part in steps.items()
        if part is not None
    }
    series = {name: columns for name, columns in found.items() if columns["step"]}
    return {"job": job.key, "x": query.x.value, "after": latest_id(session), "series": series}


def _steps(session: Session, job_id: int, name: str, query: SeriesQuery) -> tuple[int, int] | None:
    """The first and last step to read of a series."""
    whole = find_range(session, job_id, name)
    if whole is None or (query.start is None and query.end is None):
        return whole
    first, last = whole
    by = Axis.TOKENS.value if query.x is Axis.TOKENS else name
    if query.start is not None:
        first = max(first, _place(session, job_id, query.x, query.start, whole, by))
    if query.end is not None:
        last = min(last, _place(session, job_id, query.x, query.end, whole, by))
    return (first, last) if first <= last else None


def _place(session: Session, job_id: int, axis: Axis, place: float, steps: tuple[int, int], name: str) -> int:
    if axis is Axis.STEP:
        return int(min(max(place, -1), steps[1] + 1))
    return find_step(session, job_id, axis, place, steps, name)


def _columns(session: Session, job_id: int, buckets: Sequence[Bucket], axis: Axis) -> dict[str, list[Any]]:
    steps = [bucket.step for bucket in buckets]
    times = [round(bucket.time, 3) for bucket in buckets]
    own: dict[Axis, list[Any]] = {Axis.STEP: steps, Axis.TIME: times}
    return {
        "x": own[axis] if axis in own else tokens_at(session, job_id, steps),
        "step": steps,
        "time": times,
        "mean": [bucket.mean for bucket in buckets],
        "min": [bucket.low for bucket in buckets],
        "max": [bucket.high for bucket in buckets],
        "last": [bucket.last for bucket in buckets],
        "points": [bucket.points for bucket in buckets],
        "missing": [bucket.missing for bucket in buckets],
    }


def memory_chart(session: Session, job_id: int, start: float | None, end: float | None, most: int) -> dict[str, Any]:
    """The readings of a job as columns, as `memory_columns`, and the newest event that they know of: {after}."""
    return {**read_columns(session, job_id, start, end, most), "after": latest_id(session)}


def memory_columns(readings: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """One column for each name of `memory_row`."""
    rows = [memory_row(reading) for reading in readings]
    return {name: [row[name] for row in rows] for name in memory_row({"time": 0, "devices": [], "host": {}})}


def memory_row(reading: dict[str, Any]) -> dict[str, float | None]:
    """One reading as the chart shows it: of several devices, the one that the job's process is on."""
    devices, host = reading["devices"], reading["host"] or {}
    mine = [device for device in devices if device.get("process_vram_bytes") is not None]
    device: dict[str, Any] = next(iter([*mine, *devices]), {})
    return {
        "time": reading["time"],
        **{name: device.get(name) for name in OF_DEVICE},
        **{name: host.get(name) for name in OF_HOST},
    }
