"""Write and read metric series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import delete, text
from sqlmodel import Session, col, select

from app.core.metrics.models import Metric, MetricBucket
from app.core.metrics.pyramid import drop_buckets_after, fold

Series = dict[str, list[tuple[int, float | None]]]

_PUT = text("""
    INSERT INTO metric (job_id, name, step, value, time) VALUES (:job_id, :name, :step, :value, :time)
    ON CONFLICT (job_id, name, step) DO UPDATE SET value = excluded.value, time = excluded.time
""")

# DISTINCT and GROUP BY would read every row; this goes from each name to the next above it.
_NAMES = """
    WITH RECURSIVE series (name) AS (
        SELECT min(name) FROM metric WHERE job_id = :job_id
        UNION ALL
        SELECT (SELECT min(name) FROM metric WHERE job_id = :job_id AND name > series.name)
        FROM series WHERE series.name IS NOT NULL)
"""
_SERIES = text(f"{_NAMES} SELECT name FROM series WHERE name IS NOT NULL")
_LATEST = text(f"""{_NAMES}
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
    session.execute(_PUT, rows)
    fold(session, job_id, step, values)


def drop_metrics_after(session: Session, job_id: int, step: int) -> None:
    """Forget what a run came to after `step`, from where it goes on; all of it where it starts anew at step 0."""
    if not step:
        for table in (Metric, MetricBucket):
            session.execute(delete(table).where(col(table.job_id) == job_id))
        return
    for name in list_series(session, job_id):
        behind = (col(Metric.job_id) == job_id, col(Metric.name) == name, col(Metric.step) > step)
        session.execute(delete(Metric).where(*behind))
        drop_buckets_after(session, job_id, name, step)


def list_series(session: Session, job_id: int) -> list[str]:
    """The names of a job's series: one look-up each, however long they are."""
    return list(session.execute(_SERIES, {"job_id": job_id}).scalars())


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


def iterate_steps(
    session: Session, job_id: int, names: Sequence[str], after: int, limit: int = 2000
) -> list[tuple[int, float, dict[str, float | None]]]:
    """The next (step, time, {name: value}) behind a step, ascending: so many steps at most."""
    found: dict[int, tuple[float, dict[str, float | None]]] = {}
    whole = None  # up to which step every series was read
    for name in names:
        query = select(Metric.step, Metric.time, Metric.value).where(
            Metric.job_id == job_id, Metric.name == name, col(Metric.step) > after
        )
        rows = session.exec(query.order_by(col(Metric.step)).limit(limit)).all()
        if len(rows) == limit:
            whole = rows[-1][0] if whole is None else min(whole, rows[-1][0])
        for step, time, value in rows:
            found.setdefault(step, (time, {}))[1][name] = value
    return [(step, *found[step]) for step in sorted(found) if whole is None or step <= whole]
