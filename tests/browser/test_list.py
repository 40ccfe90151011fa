"""The list of jobs and a job's log, as somebody uses them while they change."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from tests.browser.conftest import Feed

pytestmark = pytest.mark.browser


def test_jobs_are_selected_and_compared_and_stay_selected_while_the_list_follows(
    page: Page, running: Feed, make_job: Callable[..., Job]
) -> None:
    make_job("second")
    make_job("third")
    page.goto("/jobs")
    compare = page.get_by_role("button", name="Compare")
    expect(compare).to_be_disabled()
    page.get_by_label("Select job 1").check()
    page.get_by_label("Select job 2").check()
    expect(page.locator("#selected-count")).to_have_text("2 selected")
    running.step(5, loss=0.5)
    expect(page.locator("#job-1")).to_contain_text("5/10")
    expect(page.get_by_label("Select job 2")).to_be_checked()
    expect(page.locator("#selected-count")).to_have_text("2 selected")
    page.get_by_label("All 2 selected").check()
    expect(page.locator("#selected-count")).to_have_text("3 selected")
    page.get_by_label("Select job 3").uncheck()
    compare.click()
    page.wait_for_url(re.compile(r"/compare\?ids=2(%2C|,)1"))


def test_several_jobs_are_cancelled_on_one_confirmation(page: Page, make_job: Callable[..., Job]) -> None:
    make_job("first")
    make_job("second")
    page.goto("/jobs")
    page.get_by_role("checkbox", name="All").check()
    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Cancel 2 jobs").click()
    page.wait_for_url("**/jobs")
    expect(page.locator("#job-list .status-cancelled")).to_have_count(2)


def test_sorting_by_a_column_keeps_the_filter_in_the_address(page: Page, make_job: Callable[..., Job]) -> None:
    make_job("alpha")
    make_job("beta")
    page.goto("/jobs?q=a&status=queued")
    page.get_by_role("link", name="Eval loss").click()
    page.wait_for_url("**/jobs?q=a&status=queued&sort=eval_loss")
    expect(page.get_by_role("columnheader", name="Eval loss")).to_have_attribute("aria-sort", "ascending")
    expect(page.get_by_label("Order")).to_have_value("eval_loss")


def test_a_log_follows_its_end_until_somebody_scrolls_up(page: Page, running: Feed) -> None:
    for number in range(100):
        running.log(f"line {number}")
    page.goto(f"/jobs/{running.job_id}")
    log = page.locator("#log")
    at_end = "(log) => log.scrollHeight - log.scrollTop - log.clientHeight < 24"
    expect(log).to_contain_text("line 99")
    assert log.evaluate(at_end)
    running.log("while it follows")
    expect(log).to_contain_text("while it follows")
    assert log.evaluate(at_end)
    log.evaluate("(log) => { log.scrollTop = 0; }")
    expect(page.locator("#log-state")).to_have_text("paused; scroll to the end to follow")
    running.log("while it is paused")
    expect(log).to_contain_text("while it is paused")
    assert log.evaluate("(log) => log.scrollTop") == 0
    log.evaluate("(log) => { log.scrollTop = log.scrollHeight; }")
    expect(page.locator("#log-state")).to_have_text("")
    running.log("once it follows again")
    expect(log).to_contain_text("once it follows again")
    assert log.evaluate(at_end)


def test_a_filtered_log_takes_only_new_lines_of_its_kind(page: Page, running: Feed) -> None:
    page.goto(f"/jobs/{running.job_id}/logs")
    page.get_by_label("Level").select_option("ERROR")
    page.wait_for_url("**/logs?*level=ERROR")
    expect(page.locator("#log")).to_have_attribute("data-level", "ERROR")
    running.log("2026-01-01 00:00 INFO worker: fine", "2026-01-01 00:00 ERROR worker: broke", "  a traceback's line")
    expect(page.locator("#log")).to_have_text("2026-01-01 00:00 ERROR worker: broke\n  a traceback's line\n")
    running.move(JobStatus.FAILED, error={"kind": "x", "message": "It broke.", "advice": None})
    expect(page.locator("#stream")).to_have_count(0)
