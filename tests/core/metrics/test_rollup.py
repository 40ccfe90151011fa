"""Rolling readings up: no peak is lost, nothing is counted twice, and what is done already costs nothing."""

from __future__ import annotations

from typing import Any

import pytest
from sqlmodel import Session, col, select

from app.core.jobs.models import Job
from app.core.jobs.queue import advance, claim_next, enqueue
from app.core.jobs.status import JobKind, JobStatus
from app.core.metrics.models import MemoryReading
from app.core.metrics.readings import read_columns
from app.core.metrics.rollup import find_due, merge, roll_up

HOST = {"ram_used_bytes": 7, "ram_total_bytes": 16, "cpu_percent": None}


def reading(used: int | None, watts: float | None = 100.0) -> dict[str, Any]:
    device = {"index": 0, "name": "GPU", "vram_used_bytes": used, "vram_total_bytes": 100, "power_watts": watts}
    return {"available": used is not None, "devices": [device], "host": HOST}


@pytest.fixture
def job_id(session: Session) -> int:
    return enqueue(session, Job(name="x", kind=JobKind.TRAIN, created_at=0)).key


def sample(session: Session, job_id: int | None, values: dict[float, int | None]) -> None:
    session.add_all(MemoryReading(job_id=job_id, time=time, data=reading(value)) for time, value in values.items())
    session.flush()


def roll_up_all(session: Session, seconds: int, to: int, before: float) -> int:
    total = 0
    while count := roll_up(session, seconds, to, before):
        total += count
    session.expire_all()
    return total


def rows(session: Session) -> list[tuple[float, int, Any]]:
    found = session.exec(select(MemoryReading).order_by(col(MemoryReading.time))).all()
    return [(row.time, row.seconds, row.data["devices"][0]["vram_used_bytes"]) for row in found]


def test_a_rolled_reading_is_the_peak_with_smallest_and_mean_beside_it() -> None:
    merged = merge([reading(10, 90.0), reading(40, 110.0), reading(30, None)])
    device = merged["devices"][0]
    assert (device["vram_used_bytes"], device["vram_total_bytes"], device["power_watts"]) == (40, 100, 110.0)
    assert (device["index"], device["name"], merged["host"], merged["available"]) == (0, "GPU", HOST, True)
    assert merged["rolled"] == {
        "readings": 3,
        "min": {"0": {"vram_used_bytes": 10, "power_watts": 90.0}},
        "mean": {"0": {"vram_used_bytes": 26.667, "power_watts": 100.0}},
    }


def test_what_could_not_be_read_is_null_and_never_0() -> None:
    merged = merge([reading(None), reading(None)])
    assert merged["devices"][0]["vram_used_bytes"] is None
    assert merged["available"] is False
    assert merge([reading(None), reading(5)])["rolled"]["min"] == {}
    assert merge([{"available": False, "devices": [], "host": None}])["devices"] == []


def test_rolling_up_twice_is_as_rolling_up_at_once() -> None:
    """The mean weighs by samples, the smallest is that of the samples."""
    samples = [reading(value) for value in (1, 2, 3, 40, 5, 6, 7)]
    twice = merge([merge(samples[:5]), merge(samples[5:])])
    assert twice["rolled"] == merge(samples)["rolled"]
    assert twice["devices"] == merge(samples)["devices"]


def test_whole_buckets_alone_are_rolled_up_oldest_first(session: Session, job_id: int) -> None:
    sample(session, job_id, {float(second): second % 10 for second in range(1003, 1047)})
    assert roll_up_all(session, 1, 10, before=1038.5) == 27
    assert rows(session)[:4] == [(1009.0, 10, 9), (1019.0, 10, 9), (1029.0, 10, 9), (1030.0, 1, 0)]
    assert roll_up_all(session, 10, 60, before=1038.5) == 2  # the minute from 1020 on has not ended by then
    assert [row[:2] for row in rows(session)][:3] == [(1019.0, 60), (1029.0, 10), (1030.0, 1)]


def test_a_peak_survives_every_step(session: Session, job_id: int) -> None:
    """Wherever in ten minutes it lies, beside other jobs' readings."""
    other = enqueue(session, Job(name="y", kind=JobKind.TRAIN, created_at=0)).key
    sample(session, job_id, {float(second): 99 if second == 347 else 10 for second in range(600)})
    sample(session, other, {second + 0.5: 20 for second in range(600)})
    for seconds, to in ((1, 10), (10, 60)):
        roll_up_all(session, seconds, to, before=600)
        shown = read_columns(session, job_id, None, None, 1000)["vram_used_bytes"]
        assert (max(shown), len(shown)) == (99, 600 // to)
        assert {*read_columns(session, other, None, None, 1000)["vram_used_bytes"]} == {20}
    of_job = select(MemoryReading).where(MemoryReading.job_id == job_id).order_by(col(MemoryReading.time))
    mean = session.exec(of_job).all()[5].data["rolled"]["mean"]["0"]["vram_used_bytes"]
    assert mean == round((59 * 10 + 99) / 60, 3)


def test_the_last_minute_of_a_failed_job_stays_as_it_was_read(session: Session, job_id: int) -> None:
    claim_next(session)
    sample(session, job_id, {float(second): second for second in range(200)})
    job = session.get_one(Job, job_id)
    advance(session, job, JobStatus.FAILED, error={"kind": "out_of_memory", "message": "m", "advice": "a"})
    session.flush()
    roll_up_all(session, 1, 10, before=10_000)
    roll_up_all(session, 10, 60, before=10_000)
    kept = [row for row in rows(session) if row[1] == 0]
    assert kept == [(float(second), 0, second) for second in range(139, 200)]
    assert [row for row in rows(session) if row[1] == 1] == []
    assert max(row[2] for row in rows(session)) == 199


def test_a_transaction_takes_few_rows(session: Session, job_id: int) -> None:
    sample(session, job_id, {float(second): 1 for second in range(2000)})
    assert roll_up(session, 1, 10, before=2000) == 100


def test_what_is_rolled_up_already_costs_nothing(session: Session, job_id: int) -> None:
    """Counted in SQLite's own instructions: ten times the rows that are done, no more work."""
    connection: Any = session.connection().connection.dbapi_connection
    costs = []
    for count in (300, 3000):
        add = (MemoryReading(job_id=job_id, time=float(n), seconds=60, data=reading(1)) for n in range(count))
        session.add_all(add)
        sample(session, job_id, {10_000.0 + second: 1 for second in range(10)})
        ticks: list[int] = []
        connection.set_progress_handler(lambda ticks=ticks: ticks.append(1), 1)
        assert find_due(session, 10, 60, before=9_000) is None
        assert roll_up(session, 1, 10, before=10_010) == 10
        session.flush()
        connection.set_progress_handler(None, 0)
        costs.append(len(ticks))
    assert costs[1] <= 1.2 * costs[0]
