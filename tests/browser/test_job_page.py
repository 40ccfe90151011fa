"""A job's page while the job goes on and when it ends."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from tests.browser.conftest import Feed

pytestmark = pytest.mark.browser


@pytest.fixture
def started(database: Database, make_job: Callable[..., Job]) -> Feed:
    """A preference job whose training has begun, without a point so far."""
    job = make_job()
    with database.write() as session:
        stored = queue.get_job(session, job.key)
        stored.spec = {**stored.spec, "task": "dpo"}
        session.add(stored)
    return Feed(database, job).move(JobStatus.STARTING, JobStatus.RUNNING, phase="train")


def test_rewards_are_drawn_as_they_arrive(page: Page, started: Feed) -> None:
    page.goto(f"/jobs/{started.job_id}")
    rewards, accuracy = page.locator("[data-chart=rewards]"), page.locator("[data-chart=accuracy]")
    expect(rewards).to_have_attribute("data-points", "0")
    started.step(1, loss=0.7, rewards_margin=0.1, rewards_chosen=0.2, rewards_rejected=0.1, rewards_accuracy=0.75)
    started.step(2, loss=0.6, eval_loss=0.6, eval_rewards_margin=0.3, eval_rewards_accuracy=0.875)
    expect(rewards.locator("[data-plot]")).to_have_attribute(
        "aria-label", re.compile("2 points; .* chosen 0.2, rejected 0.1, eval margin 0.3")
    )
    expect(accuracy.locator(".legend li")).to_have_text(["accuracy", "smoothed accuracy", "eval accuracy"])
    expect(page.locator("#job-overview")).to_contain_text("reward accuracy")


def test_charts_without_a_point_leave_when_the_job_fails(page: Page, started: Feed) -> None:
    page.goto(f"/jobs/{started.job_id}")
    expect(page.locator("[data-chart]")).to_have_count(8)
    started.step(1, loss=0.7)
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "1")
    started.move(JobStatus.FAILED, error={"kind": "x", "message": "It broke.", "advice": None})
    expect(page.locator("#job-error")).to_contain_text("It broke.")
    expect(page.locator("[data-chart]")).to_have_count(2)
    live = [chart.get_attribute("data-chart") for chart in page.locator("[data-chart]").all()]
    page.reload()
    assert [chart.get_attribute("data-chart") for chart in page.locator("[data-chart]").all()] == live
