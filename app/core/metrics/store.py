"""Write and read metric series and memory readings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, text
from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Session, col, select

from app.core.metrics.models import MemoryReading, Metric
from app.core.metrics.rollup import find_peak

Series = dict[str, list[tuple[int, float | None]]]
MAX_READINGS = 2000  # a chart is about 1,000 pixels wide

# DISTINCT and GROUP BY would read every row; this goes from each name to the next above it.
_LATEST = text("""
    WITH RECURSIVE series (name) AS (
        SELECT min(name) FROM metric WHERE job_id = :job_id
        UNION ALL
        SELECT (SELECT min(name) FROM metric WHERE job_id = :job_id AND name > series.name)
        FROM series WHERE series.name IS NOT NULL)
    SELECT name, (SELECT value FROM metric WHERE job_id = :job_id AND metric.name = series.name
                  ORDER BY step DESC LIMIT 1)
    FROM series WHERE name IS NOT NULL
""")


def put_metrics(session: Session, job_id: int, step: int, time: float, values: Mapping[str, float | None]) -> None:
    """Store one step's values; a step that is run again replaces its rows."""
    rows = [
        {"job_id": job_id, "name": name, "step": step, "value": value, "time": time} for name, value in values.items()
    ]
    if not rows:
        return
    statement = insert(Metric).values(rows)
    replace = {"value": statement.excluded.value, "time": statement.excluded.time}
    session.execute(statement.on_conflict_do_update(index_elements=["job_id", "name", "step"], set_=replace))


def drop_metrics_after(session: Session, job_id: int, step: int) -> None:
    """Forget what a run came to after `step`, from where it goes on; all of it where it starts anew at step 0."""
    of_job = delete(Metric).where(col(Metric.job_id) == job_id)
    session.execute(of_job.where(col(Metric.step) > step) if step else of_job)


def read_series(session: Session, job_id: int, name: str | None = None) -> Series:
    """{name: [(step, value), …]}, each step once, ascending."""
    query = select(Metric.name, Metric.step, Metric.value).where(Metric.job_id == job_id)
    if name is not None:
        query = query.where(Metric.name == name)
    series: Series = defaultdict(list)
    for metric, step, value in session.exec(query.order_by(col(Metric.name), col(Metric.step))):
        series[metric].append((step, value))
    return dict(series)


def latest_values(session: Session, job_id: int) -> dict[str, float | None]:
    """The newest value of each series of a job: two look-ups in the primary key a series, however long it is."""
    return {name: value for name, value in session.execute(_LATEST, {"job_id": job_id})}


def read_memory(session: Session, job_id: int) -> list[dict[str, Any]]:
    """Readings taken while the job ran, oldest first; of more than MAX_READINGS several are told as their peak."""
    of_job = select(MemoryReading.time, MemoryReading.data).where(MemoryReading.job_id == job_id)
    rows = session.exec(of_job.order_by(col(MemoryReading.time))).all()
    stride = -(-len(rows) // MAX_READINGS) or 1
    if stride == 1:
        return [{"time": time, **data} for time, data in rows]
    chunks = (rows[start : start + stride] for start in range(0, len(rows), stride))
    return [{"time": chunk[-1][0], **find_peak([data for _, data in chunk])} for chunk in chunks]
