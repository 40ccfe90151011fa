"""A series of any length is read in so many buckets, and no spike is lost on the way."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from sqlmodel import Session, col, select

from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.status import JobKind
from app.core.metrics.models import MetricBucket
from app.core.metrics.pyramid import fold_all
from app.core.metrics.series import Axis, Bucket, find_range, find_step, read_buckets, tokens_at
from app.core.metrics.store import drop_metrics_after, put_metrics

Points = Sequence[tuple[int, float | None]]


@pytest.fixture
def job_id(session: Session) -> int:
    return enqueue(session, Job(name="x", kind=JobKind.TRAIN, created_at=0)).key


def _put(session: Session, job_id: int, points: Points, name: str = "loss") -> None:
    for step, value in points:
        put_metrics(session, job_id, step, 1000.0 + step, {name: value})


def _expected(points: Points, shift: int) -> list[Bucket]:
    """The same by brute force."""
    found: dict[int, list[tuple[int, float | None]]] = {}
    for step, value in sorted(dict(points).items()):
        found.setdefault(step >> shift, []).append((step, value))
    return [_bucket(rows) for rows in found.values()]


def _bucket(rows: Points) -> Bucket:
    finite = [value for _, value in rows if value is not None]
    low, high = (min(finite), max(finite)) if finite else (None, None)
    step, last = rows[-1]
    total = sum(finite)
    return Bucket(step, 1000.0 + step, last, len(finite), len(rows) - len(finite), total, low, high)


def _same(found: Sequence[Bucket], expected: Sequence[Bucket]) -> bool:
    def shown(bucket: Bucket) -> tuple[object, ...]:
        mean = None if bucket.mean is None else round(bucket.mean, 9)
        return bucket.step, bucket.time, bucket.last, bucket.points, bucket.missing, mean, bucket.low, bucket.high

    return [shown(each) for each in found] == [shown(each) for each in expected]


def _walk(count: int, every: int = 1) -> list[tuple[int, float | None]]:
    random_of = random.Random(7)
    return [(step * every, random_of.gauss(0, 1) if step % 97 else None) for step in range(1, count + 1)]


def test_few_points_come_as_they_are(session: Session, job_id: int) -> None:
    points = _walk(50)
    _put(session, job_id, points)
    assert _same(read_buckets(session, job_id, "loss", 0, 50, 50), _expected(points, 0))


@pytest.mark.parametrize(("count", "every", "most", "shift"), [(1000, 1, 100, 4), (1000, 1, 12, 7), (700, 5, 100, 6)])
def test_many_points_come_in_buckets_that_hold_them_all(
    session: Session, job_id: int, count: int, every: int, most: int, shift: int
) -> None:
    points = _walk(count, every)
    _put(session, job_id, points)
    found = read_buckets(session, job_id, "loss", 0, count * every, most)
    assert len(found) <= most + 1
    assert _same(found, _expected(points, shift))


def test_a_spike_of_one_step_is_the_largest_of_its_bucket(session: Session, job_id: int) -> None:
    _put(session, job_id, [(step, 99.0 if step == 333 else 1.0) for step in range(1000)])
    found = read_buckets(session, job_id, "loss", 0, 999, 10)
    assert [bucket.high for bucket in found].count(99.0) == 1
    assert max(bucket.mean or 0.0 for bucket in found) < 3


def test_what_is_told_while_a_run_goes_on_is_there_at_once(session: Session, job_id: int) -> None:
    points: list[tuple[int, float | None]] = []
    for step in range(1, 200):
        points.append((step, float(step)))
        _put(session, job_id, points[-1:])
        assert _same(
            read_buckets(session, job_id, "loss", 0, step, 10),
            _expected(points, 0 if step <= 10 else (step // 10).bit_length()),
        )


def test_a_run_that_goes_on_from_an_earlier_step_leaves_nothing_of_the_later_ones(
    session: Session, job_id: int
) -> None:
    points = _walk(600)
    _put(session, job_id, points)
    drop_metrics_after(session, job_id, 301)
    assert _same(read_buckets(session, job_id, "loss", 0, 600, 20), _expected(points[:301], 5))
    again = [(step, 5.0) for step in range(302, 500)]
    _put(session, job_id, again)
    assert _same(read_buckets(session, job_id, "loss", 0, 500, 20), _expected([*points[:301], *again], 5))
    drop_metrics_after(session, job_id, 0)
    assert session.exec(select(MetricBucket)).all() == []


def test_points_that_come_late_or_again_are_counted_once(session: Session, job_id: int) -> None:
    points = _walk(600)
    later = [(100, 7.0), (3, None), (599, -3.0)]
    _put(session, job_id, [*points[:200], *points[300:], *points[200:300], *later])
    assert _same(read_buckets(session, job_id, "loss", 0, 600, 5), _expected([*points, *later], 7))


def test_a_part_of_a_series_is_read_finer_than_all_of_it(session: Session, job_id: int) -> None:
    points = _walk(2000)
    _put(session, job_id, points)
    found = read_buckets(session, job_id, "loss", 1000, 1040, 50)
    assert _same(found, _expected(points[999:1040], 0))


def test_folding_all_comes_to_what_was_folded_as_it_came(session: Session, job_id: int) -> None:
    _put(session, job_id, _walk(700))
    _put(session, job_id, _walk(40, 50), "eval_loss")
    query = select(MetricBucket).order_by(col(MetricBucket.name), col(MetricBucket.level), col(MetricBucket.bucket))
    before = [bucket.model_dump() for bucket in session.exec(query)]
    session.expire_all()
    fold_all(session)
    after = [bucket.model_dump() for bucket in session.exec(query)]
    assert [each | {"total": round(each["total"], 9)} for each in after] == [
        each | {"total": round(each["total"], 9)} for each in before
    ]
    assert {each["level"] for each in before} == {1, 2, 3}


def test_a_place_on_an_axis_is_found_by_its_step(session: Session, job_id: int) -> None:
    for step in range(10, 1000, 10):
        put_metrics(session, job_id, step, 5000.0 + step / 10, {"loss": 1.0, "tokens": step * 100.0})
    steps = find_range(session, job_id, "loss")
    assert steps == (10, 990)
    assert find_step(session, job_id, Axis.TIME, 5050.0, steps, "loss") in range(491, 501)
    assert find_step(session, job_id, Axis.TOKENS, 50_001.0, steps, "tokens") in range(501, 511)
    assert find_step(session, job_id, Axis.TIME, 9e9, steps, "loss") > 990
    assert find_step(session, job_id, Axis.TIME, 0.0, steps, "loss") <= 10
    assert tokens_at(session, job_id, [5, 10, 995]) == [None, 1000.0, 99_000.0]
    assert find_range(session, job_id, "none") is None
