"""Metric series by step."""

from __future__ import annotations

from typing import Any

import pytest
from sqlmodel import Session

from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.status import JobKind
from app.core.metrics.store import iterate_steps, latest_values, put_metrics, read_series


@pytest.fixture
def job_id(session: Session) -> int:
    return enqueue(session, Job(name="x", kind=JobKind.TRAIN, created_at=0)).key


def test_series_are_ascending_and_hold_each_step_once(session: Session, job_id: int) -> None:
    for step in (3, 1, 2):
        put_metrics(session, job_id, step, 0.0, {"loss": step / 10, "learning_rate": 1e-4})
    assert read_series(session, job_id) == {
        "learning_rate": [(1, 1e-4), (2, 1e-4), (3, 1e-4)],
        "loss": [(1, 0.1), (2, 0.2), (3, 0.3)],
    }
    assert read_series(session, job_id, "loss") == {"loss": [(1, 0.1), (2, 0.2), (3, 0.3)]}
    assert read_series(session, job_id, "no such") == {}


def test_a_step_that_is_run_again_replaces_its_row(session: Session, job_id: int) -> None:
    put_metrics(session, job_id, 1, 0.0, {"loss": 2.0, "grad_norm": 1.0})
    put_metrics(session, job_id, 1, 1.0, {"loss": 1.5})
    assert read_series(session, job_id) == {"grad_norm": [(1, 1.0)], "loss": [(1, 1.5)]}


def test_a_value_that_was_not_finite_is_none(session: Session, job_id: int) -> None:
    put_metrics(session, job_id, 1, 0.0, {"loss": None})
    put_metrics(session, job_id, 2, 0.0, {})
    assert read_series(session, job_id) == {"loss": [(1, None)]}


def test_series_of_another_job_stay_apart(session: Session, job_id: int) -> None:
    other = enqueue(session, Job(name="y", kind=JobKind.TRAIN, created_at=0)).key
    put_metrics(session, job_id, 1, 0.0, {"loss": 1.0})
    put_metrics(session, other, 1, 0.0, {"loss": 9.0})
    assert read_series(session, job_id) == {"loss": [(1, 1.0)]}
    assert latest_values(session, other) == {"loss": 9.0}


def test_latest_values_are_of_the_highest_step(session: Session, job_id: int) -> None:
    for step, loss in ((2, 0.5), (10, 0.9), (9, 0.1)):
        put_metrics(session, job_id, step, 0.0, {"loss": loss})
    put_metrics(session, job_id, 5, 0.0, {"eval_loss": 0.7})
    assert latest_values(session, job_id) == {"loss": 0.9, "eval_loss": 0.7}


def test_latest_values_cost_the_same_however_long_the_series_are(session: Session, job_id: int) -> None:
    """Counted in SQLite's own instructions: ten times the rows, no more work."""
    connection: Any = session.connection().connection.dbapi_connection
    costs = []
    for steps in (range(30), range(30, 300)):
        for step in steps:
            put_metrics(session, job_id, step, 0.0, {"loss": step / 2, "grad_norm": None})
        ticks: list[int] = []
        connection.set_progress_handler(lambda ticks=ticks: ticks.append(1), 1)
        latest = latest_values(session, job_id)
        connection.set_progress_handler(None, 0)
        assert latest == {"loss": steps[-1] / 2, "grad_norm": None}
        costs.append(len(ticks))
    assert costs[1] <= 1.2 * costs[0]


def test_steps_come_in_parts_that_hold_every_series_whole(session: Session, job_id: int) -> None:
    for step in range(1, 31):
        put_metrics(session, job_id, step, float(step), {"loss": step / 2})
    for step in (10, 25):
        put_metrics(session, job_id, step, float(step), {"eval_loss": 9.0})
    found = []
    while chunk := iterate_steps(session, job_id, ["loss", "eval_loss"], found[-1][0] if found else 0, limit=7):
        found += chunk
    assert [step for step, _, _ in found] == [*range(1, 31)]
    assert found[9] == (10, 10.0, {"loss": 5.0, "eval_loss": 9.0})
    assert found[24][2] == {"loss": 12.5, "eval_loss": 9.0}
