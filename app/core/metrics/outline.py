"""The outline of a series: a few values of it, evenly spread, for a line of the height of text."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlmodel import Session

OUTLINE_POINTS = 24

# From each of so many steps to the next value: one look into the primary key a point, however long the series is.
_OUTLINE = text("""
    WITH RECURSIVE
        span (first, last) AS (
            SELECT (SELECT min(step) FROM metric WHERE job_id = :job_id AND name = :name),
                   (SELECT max(step) FROM metric WHERE job_id = :job_id AND name = :name)),
        point (number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM point WHERE number < :count - 1)
    SELECT DISTINCT metric.step, metric.value FROM span CROSS JOIN point CROSS JOIN metric
        ON metric.job_id = :job_id AND metric.name = :name AND metric.step =
            (SELECT min(step) FROM metric WHERE job_id = :job_id AND name = :name
             AND step >= span.first + (span.last - span.first) * point.number / (:count - 1))
    WHERE metric.value IS NOT NULL ORDER BY metric.step
""")


def read_outline(session: Session, job_id: int, name: str = "loss") -> Sequence[tuple[int, float]]:
    """(step, value), ascending; empty where the job has no such series. Values that were not finite are left out."""
    values = {"job_id": job_id, "name": name, "count": OUTLINE_POINTS}
    return [(step, value) for step, value in session.execute(_OUTLINE, values)]
