"""Runs laid over each other, in a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from app.core.metrics.store import put_metrics
from tests.browser.axe import check_axe
from tests.browser.conftest import Feed, LiveServer

pytestmark = pytest.mark.browser


@pytest.fixture
def runs(database: Database, make_job: Callable[..., Job]) -> list[Feed]:
    """Five trainings that ended, and one that goes on."""
    feeds = [Feed(database, make_job(f"run {number}", r=8 * number)) for number in range(1, 7)]
    for number, feed in enumerate(feeds, 1):
        feed.move(JobStatus.STARTING, JobStatus.RUNNING, phase="train")
        began = time.time()
        with database.write() as session:
            for step in range(1, 41):
                values = {"loss": 2.0 / step + number / 10, "tokens": 100.0 * number * step}
                put_metrics(session, feed.job_id, step, began + step, values)
            put_metrics(session, feed.job_id, 40, began + 40, {"eval_loss": 1.0 + number / 10})
            data = {"prompt": "Say hi.", "text": f"Hi from {number}", "model": "tuned"}
            log.append(session, EventKind.SAMPLE, data, job_id=feed.job_id, step=40)
        if number < 6:
            feed.move(JobStatus.COMPLETED, summary={"train_loss": 1.0, "tokens_per_second": 100.0 * number})
    return feeds


def test_six_runs_are_overlaid_by_step_time_and_tokens(page: Page, runs: list[Feed]) -> None:
    page.goto("/compare?ids=1,2,3,4,5,6")
    loss = page.locator("[data-series=loss]")
    expect(loss.locator(".legend li")).to_have_count(6)
    expect(loss).to_have_attribute("data-range", "[1,40]")
    styles = loss.locator(".key").evaluate_all("(keys) => keys.map((key) => key.getAttribute('style'))")
    assert len(set(styles)) == 6
    axis = page.locator("select[name=axis]")
    axis.select_option("tokens")
    expect(loss).to_have_attribute("data-range", "[100,24000]")
    axis.select_option("time")
    expect(loss).to_have_attribute("data-range", re.compile(r",4\d\.\d+\]$"))
    loss.locator("[data-plot]").press("End")
    expect(loss.locator("[data-spoken]")).to_contain_text("0m 4")


def test_the_cursor_names_every_run(page: Page, runs: list[Feed]) -> None:
    page.goto("/compare?ids=1,2,3,4,5,6")
    plot = page.locator("[data-series=loss] [data-plot]")
    expect(page.locator("[data-series=loss]")).to_have_attribute("data-range", "[1,40]")
    plot.press("Home")
    for number in range(1, 7):
        expect(page.locator("[data-series=loss] [data-spoken]")).to_contain_text(
            f"#{number} run {number} {2 + number / 10:.4g}"
        )


def test_a_run_that_goes_on_grows_and_the_address_shows_the_same_to_others(page: Page, runs: list[Feed]) -> None:
    page.goto("/compare?ids=5&ids=6")
    loss = page.locator("[data-series=loss]")
    expect(loss).to_have_attribute("data-range", "[1,40]")
    runs[-1].step(41, loss=0.5)
    expect(loss).to_have_attribute("data-range", "[1,41]")
    page.get_by_role("link", name="Show all").click()
    expect(page.locator("main")).to_contain_text("lora_alpha")
    address = page.url
    page.goto("/jobs")
    page.goto(address)
    expect(page.locator("[data-series=loss] .legend li")).to_have_text(["#5 run 5", "#6 run 6"])
    expect(page.locator("main")).to_contain_text("lora_alpha")
    expect(page.locator("main")).to_contain_text("Hi from 5")


def test_runs_are_chosen_on_the_page_itself(page: Page, runs: list[Feed]) -> None:
    page.goto("/compare")
    for number in (2, 3):
        page.get_by_label(f"#{number} run {number}").check()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("[data-series=loss] .legend li")).to_have_text(["#3 run 3", "#2 run 2"])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_has_no_axe_violation_in_any_state(
    browser: Browser, server: LiveServer, runs: list[Feed], theme: str, width: int
) -> None:
    scheme: Literal["light", "dark"] = "dark" if theme == "dark" else "light"
    context = browser.new_context(
        base_url=server.url, viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    for query in ("", "?ids=99", "?ids=1", "?ids=1,2,3,4,5,6&all=true"):
        page.goto(f"/compare{query}")
        if "," in query:
            expect(page.locator("[data-series=loss]")).to_have_attribute("data-range", "[1,40]")
        check_axe(page, width)
    context.close()
