"""Buckets of metric points, kept beside the points, so that a series of any length is read in a moment.

A bucket of level L covers 8**L steps from a multiple of that on. It is folded once its series goes on behind it, so at
each level the folded buckets are a series' beginning, and the few points behind them stand in the levels below.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import TextClause, delete, text
from sqlmodel import Session, col

from app.core.metrics.models import MetricBucket

SHIFT = 3  # a bucket holds eight of the level below
LEVELS = 6  # the highest covers 262,144 steps


def _fold_sql(source: str, counted: str, where: str) -> str:
    """Aggregates `source` rows by bucket; the newest point's own value and time stand in `metric`."""
    return f"""
        INSERT OR REPLACE INTO metric_bucket
            (job_id, name, level, bucket, step, time, last, points, missing, total, low, high)
        SELECT folded.job_id, folded.name, :level, folded.bucket, newest.step, newest.time, newest.value,
               folded.points, folded.missing, folded.total, folded.low, folded.high
        FROM (SELECT job_id, name, step >> (:level * {SHIFT}) AS bucket, max(step) AS step, {counted}
              FROM {source} WHERE {where} GROUP BY job_id, name, step >> (:level * {SHIFT})) AS folded
        JOIN metric AS newest ON newest.job_id = folded.job_id AND newest.name = folded.name
                             AND newest.step = folded.step
    """


_OF_POINTS = (
    "metric",
    "count(value) AS points, count(*) - count(value) AS missing, total(value) AS total, "
    "min(value) AS low, max(value) AS high",
)
_OF_BUCKETS = (
    "metric_bucket",
    "sum(points) AS points, sum(missing) AS missing, total(total) AS total, min(low) AS low, max(high) AS high",
)
_ONE = "job_id = :job_id AND name IN (SELECT value FROM json_each(:names))"
_FOLD_POINTS = text(_fold_sql(*_OF_POINTS, f"{_ONE} AND step >= :first AND step < :end"))
_FOLD_BUCKETS = text(
    _fold_sql(
        *_OF_BUCKETS,
        f"{_ONE} AND level = :level - 1 AND bucket >= :first >> ((:level - 1) * {SHIFT})"
        f" AND bucket < :end >> ((:level - 1) * {SHIFT})",
    )
)
_ALL_POINTS = text(_fold_sql(*_OF_POINTS, "true"))
_ALL_BUCKETS = text(_fold_sql(*_OF_BUCKETS, "level = :level - 1"))
_DROP_UNFINISHED = text("""
    DELETE FROM metric_bucket WHERE (job_id, name, level, bucket) IN
        (SELECT job_id, name, level, max(bucket) FROM metric_bucket GROUP BY job_id, name, level)
""")
_NEIGHBOURS = text("""
    SELECT names.value,
           (SELECT max(step) FROM metric WHERE job_id = :job_id AND name = names.value AND step < :step),
           (SELECT max(step) FROM metric WHERE job_id = :job_id AND name = names.value AND step > :step)
    FROM json_each(:names) AS names
""")


def fold(session: Session, job_id: int, step: int, names: Iterable[str]) -> None:
    """Call once the points of `step` are stored: folds the buckets that they are the first behind."""
    due: dict[tuple[int, int], list[str]] = defaultdict(list)
    values = {"job_id": job_id, "step": step, "names": json.dumps(list(names))}
    for name, before, behind in session.execute(_NEIGHBOURS, values).all():
        for level in range(1, LEVELS + 1):
            width = level * SHIFT
            if behind is not None and behind >> width != step >> width:  # told late, or anew: its bucket was folded
                due[level, step >> width].append(name)
            if before is not None and before >> width != step >> width:
                due[level, before >> width].append(name)
    for (level, bucket), found in sorted(due.items()):
        _fold(session, job_id, level, bucket, found)


def _fold(session: Session, job_id: int, level: int, bucket: int, names: list[str]) -> None:
    width = level * SHIFT
    values = {"first": bucket << width, "end": (bucket + 1) << width}
    statement: TextClause = _FOLD_POINTS if level == 1 else _FOLD_BUCKETS
    session.execute(statement, {**values, "job_id": job_id, "level": level, "names": json.dumps(names)})


def fold_all(session: Session) -> None:
    """Make every bucket anew, after points were brought in past `fold`."""
    session.execute(delete(MetricBucket))
    for level in range(1, LEVELS + 1):
        session.execute(_ALL_POINTS if level == 1 else _ALL_BUCKETS, {"level": level})
    session.execute(_DROP_UNFINISHED)


def drop_buckets_after(session: Session, job_id: int, name: str, step: int) -> None:
    """Forget a series' buckets that hold a step behind `step`."""
    of_series = delete(MetricBucket).where(col(MetricBucket.job_id) == job_id, col(MetricBucket.name) == name)
    for level in range(1, LEVELS + 1):
        behind = (col(MetricBucket.level) == level, col(MetricBucket.bucket) >= (step + 1) >> (level * SHIFT))
        session.execute(of_series.where(*behind))
