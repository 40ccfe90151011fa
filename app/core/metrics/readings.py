"""Read the memory readings of a job, of several the largest of each value, so that no peak is lost."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import text
from sqlmodel import Session

OF_DEVICE = (
    "vram_used_bytes",
    "process_vram_bytes",
    "vram_total_bytes",
    "utilization_percent",
    "temperature_celsius",
    "power_watts",
)
OF_HOST = ("ram_used_bytes", "child_rss_bytes", "ram_total_bytes")
COLUMNS = ("time", *OF_DEVICE, *OF_HOST)
_LOOKED_AT = 20

_LATEST = text("SELECT time, data FROM memory_reading WHERE job_id = :job_id ORDER BY time DESC LIMIT :limit")
_OF_JOB = "job_id = :job_id AND time >= :start AND time <= :end"
_OF_BOX = "seconds IN (0, 1, 10, 60) AND time >= :start"  # the index has `seconds` first


def latest_job_reading(session: Session, job_id: int) -> dict[str, Any] | None:
    """The last reading while the job ran."""
    return next(iter(_latest(session, job_id, 1)), None)


def read_columns(
    session: Session, job_id: int, start: float | None, end: float | None, most: int
) -> dict[str, list[Any]]:
    """A list for each of COLUMNS, oldest first, `most` rows at most: of the device that the job's process is on."""
    values = {"job_id": job_id, "start": -1e300 if start is None else start, "end": 1e300 if end is None else end}
    return _read_columns(session, _find_place(session, job_id), _OF_JOB, values, most)


def read_box_columns(session: Session, place: int, start: float, most: int) -> dict[str, list[Any]]:
    """As `read_columns`, of the device at `place` since `start`, whatever ran."""
    return _read_columns(session, place, _OF_BOX, {"start": start}, most)


def iterate_readings(session: Session, job_id: int, after: float, most: int = 2000) -> list[tuple[Any, ...]]:
    """The next rows behind a time, oldest first, each with the values of COLUMNS: of the device that the job is on."""
    statement = text(
        f"{_columns_sql(_find_place(session, job_id), 'job_id = :job_id AND time > :after', 'id')} LIMIT :most"
    )
    return [tuple(row) for row in session.execute(statement, {"job_id": job_id, "after": after, "most": most})]


def _read_columns(session: Session, place: int, where: str, values: dict[str, Any], most: int) -> dict[str, list[Any]]:
    span = text(f"SELECT count(*), min(time), max(time) FROM memory_reading WHERE {where}")
    count, first, last = session.execute(span, values).one()
    width = (last - first) / (most - 1) if count > most else 0.0
    statement = text(_columns_sql(place, where, "CAST((time - :first) / :width AS INT)" if width else "id"))
    rows = session.execute(statement, values | ({"first": first, "width": width} if width else {})).all()
    columns = zip(*rows, strict=True) if rows else ((),) * len(COLUMNS)
    return {name: list(column) for name, column in zip(COLUMNS, columns, strict=True)}


def _columns_sql(place: int, where: str, group: str) -> str:
    """SQLite takes the values out of the stored JSON: four times as fast as reading every object here."""
    paths = [f"$.devices[{place}].{name}" for name in OF_DEVICE] + [f"$.host.{name}" for name in OF_HOST]
    values = ", ".join(f"max(data ->> '{path}')" for path in paths)
    return f"""
        SELECT max(time) AS at, {values} FROM memory_reading
        WHERE {where} GROUP BY {group} ORDER BY at
    """


def _find_place(session: Session, job_id: int) -> int:
    """Where in a reading's devices the one of the job's process stands; the first where no process is seen."""
    for reading in _latest(session, job_id, _LOOKED_AT):
        for place, device in enumerate(reading["devices"]):
            if device.get("process_vram_bytes") is not None:
                return place
    return 0


def _latest(session: Session, job_id: int, limit: int) -> list[dict[str, Any]]:
    rows = session.execute(_LATEST, {"job_id": job_id, "limit": limit})
    return [{"time": time, **json.loads(data)} for time, data in rows]
