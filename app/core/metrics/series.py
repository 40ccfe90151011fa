"""Read a part of a series in so many buckets, whatever its length; spikes stay, as the largest of their bucket."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import text
from sqlmodel import Session

from app.core.metrics.pyramid import LEVELS, SHIFT

_POINTS = text("""
    SELECT step, time, value, value IS NOT NULL, value IS NULL, value, value, value FROM metric
    WHERE job_id = :job_id AND name = :name AND step >= :first AND step < :end ORDER BY step
""")
_BUCKETS = text(f"""
    SELECT step, time, last, points, missing, total, low, high FROM metric_bucket
    WHERE job_id = :job_id AND name = :name AND level = :level
      AND bucket >= :first >> (:level * {SHIFT}) AND bucket < (:end + (1 << :level * {SHIFT}) - 1) >> (:level * {SHIFT})
    ORDER BY bucket
""")
_COUNT = text("""
    SELECT count(*) FROM (SELECT 1 FROM metric WHERE job_id = :job_id AND name = :name
                          AND step >= :first AND step < :end LIMIT :most)
""")
_ENDS = text("""
    SELECT (SELECT step FROM metric WHERE job_id = :job_id AND name = :name ORDER BY step LIMIT 1),
           (SELECT step FROM metric WHERE job_id = :job_id AND name = :name ORDER BY step DESC LIMIT 1)
""")
_FROM_STEP = text("""
    SELECT step, time, value FROM metric
    WHERE job_id = :job_id AND name = :name AND step >= :step ORDER BY step LIMIT 1
""")
_UP_TO_STEPS = text("""
    SELECT (SELECT value FROM metric WHERE job_id = :job_id AND name = :name AND step <= wanted.value
            ORDER BY step DESC LIMIT 1)
    FROM json_each(:steps) AS wanted ORDER BY wanted.key
""")


class Axis(StrEnum):
    """What stands along x."""

    STEP = "step"
    TIME = "time"  # seconds since the epoch
    TOKENS = "tokens"  # read so far, padding not counted


@dataclass(slots=True)
class Bucket:
    """Neighbouring points as one: `step`, `time` and `last` are of the newest. A bucket may hold a single point."""

    step: int
    time: float
    last: float | None
    points: int  # finite ones
    missing: int  # those that were not finite
    total: float | None
    low: float | None
    high: float | None

    @property
    def mean(self) -> float | None:
        """Of the finite points; None without any."""
        return None if not self.points or self.total is None else self.total / self.points


def read_buckets(session: Session, job_id: int, name: str, first: int, last: int, most: int) -> list[Bucket]:
    """The points of the steps `first` to `last`, each alone where there are at most `most`, else in so many buckets.

    Buckets cover 2**n steps from a multiple of that on, so a reader that pans sees the same ones again.
    """
    values = {"job_id": job_id, "name": name, "first": first, "end": last + 1, "most": most + 1}
    if session.execute(_COUNT, values).scalar_one() <= most:
        return [Bucket(*row) for row in session.execute(_POINTS, values)]
    shift = ((last - first) // most).bit_length()
    level = min(shift // SHIFT, LEVELS)
    return _join(_read(session, job_id, name, first, last + 1, level), shift)


def find_range(session: Session, job_id: int, name: str) -> tuple[int, int] | None:
    """A series' first and last step; None for one without a point."""
    first, last = session.execute(_ENDS, {"job_id": job_id, "name": name}).one()
    return None if first is None else (first, last)


def find_step(session: Session, job_id: int, axis: Axis, place: float, steps: tuple[int, int], name: str) -> int:
    """The first step at or behind a place of the axis, by halving; behind the last one where there is none."""
    low, high = steps
    high += 1
    while low < high:
        middle = (low + high) // 2
        row = session.execute(_FROM_STEP, {"job_id": job_id, "name": name, "step": middle}).first()
        at = None if row is None else row.time if axis is Axis.TIME else row.value
        if at is None or at >= place:
            high = middle
        else:
            low = row.step + 1 if row is not None else high
    return low


def tokens_at(session: Session, job_id: int, steps: Sequence[int]) -> list[float | None]:
    """How many tokens had been read at each step."""
    values = {"job_id": job_id, "name": Axis.TOKENS.value, "steps": json.dumps(list(steps))}
    return list(session.execute(_UP_TO_STEPS, values).scalars())


def _read(session: Session, job_id: int, name: str, first: int, end: int, level: int) -> Iterator[Bucket]:
    """Buckets of a level, then of each one below for what is not folded there yet, then points."""
    for each in range(level, 0, -1):
        values = {"job_id": job_id, "name": name, "level": each, "first": first, "end": end}
        rows = session.execute(_BUCKETS, values).all()
        yield from (Bucket(*row) for row in rows)
        if rows:
            first = ((rows[-1].step >> (each * SHIFT)) + 1) << (each * SHIFT)
    rows = session.execute(_POINTS, {"job_id": job_id, "name": name, "first": first, "end": end}).all()
    yield from (Bucket(*row) for row in rows)


def _join(buckets: Iterable[Bucket], shift: int) -> list[Bucket]:
    """Buckets of 2**shift steps."""
    joined: list[Bucket] = []
    for bucket in buckets:
        if joined and bucket.step >> shift == joined[-1].step >> shift:
            _add(joined[-1], bucket)
        else:
            joined.append(bucket)
    return joined


def _add(into: Bucket, bucket: Bucket) -> None:
    into.step, into.time, into.last = bucket.step, bucket.time, bucket.last
    into.points += bucket.points
    into.missing += bucket.missing
    if bucket.low is None or bucket.high is None:
        return
    into.total = (into.total or 0.0) + (bucket.total or 0.0)
    if into.low is None or bucket.low < into.low:
        into.low = bucket.low
    if into.high is None or bucket.high > into.high:
        into.high = bucket.high
