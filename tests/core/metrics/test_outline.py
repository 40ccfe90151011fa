"""A series as a few of its values."""

from __future__ import annotations

import pytest
from sqlmodel import Session

from app.core.jobs.models import Job
from app.core.jobs.status import JobKind
from app.core.metrics.outline import OUTLINE_POINTS, read_outline
from app.core.metrics.store import put_metrics
from app.web.sparkline import HEIGHT, WIDTH, draw_line


@pytest.fixture
def job_id(session: Session) -> int:
    job = Job(name="job", kind=JobKind.TRAIN, created_at=0)
    session.add(job)
    session.flush()
    return job.key


def test_a_long_series_is_told_by_a_few_values_from_its_first_to_its_last(session: Session, job_id: int) -> None:
    for step in range(1, 501):
        put_metrics(session, job_id, step, 0.0, {"loss": 1000.0 - step, "eval_loss": 1.0})
    outline = read_outline(session, job_id)
    assert len(outline) == OUTLINE_POINTS
    assert outline[0] == (1, 999.0)
    assert outline[-1] == (500, 500.0)
    assert all(value == 1000.0 - step for step, value in outline)


def test_short_and_broken_series_are_told_as_far_as_they_go(session: Session, job_id: int) -> None:
    assert read_outline(session, job_id) == []
    put_metrics(session, job_id, 7, 0.0, {"loss": 2.0})
    assert read_outline(session, job_id) == [(7, 2.0)]
    put_metrics(session, job_id, 9, 0.0, {"loss": None})
    assert read_outline(session, job_id) == [(7, 2.0)]


def test_a_line_stays_within_its_box_and_is_drawn_downwards_where_the_loss_falls() -> None:
    line = [tuple(map(float, each.split(","))) for each in draw_line([(10, 4.0), (20, 3.0), (110, 1.0)]).split()]
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    assert line[0][1] < line[1][1] < line[-1][1] <= HEIGHT
    assert line[0][0] >= 0
    assert line[-1][0] <= WIDTH
    assert draw_line([(1, 2.0)]) == ""
    assert draw_line([(1, 2.0), (2, 2.0)])
