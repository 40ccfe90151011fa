"""A job runs out of memory while its page is open."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Page, expect

from app.core.jobs.status import JobStatus
from tests.autopsies import make_error
from tests.browser.conftest import Feed

pytestmark = pytest.mark.browser


def test_autopsy_comes_by_itself_and_its_button_leads_to_the_changed_job(page: Page, running: Feed) -> None:
    page.goto(f"/jobs/{running.job_id}")
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "3")
    running.move(JobStatus.FAILED, error=make_error(time=time.time()))
    section = page.locator("#job-autopsy")
    expect(section.get_by_role("heading")).to_contain_text("what to change")
    expect(section.locator("#autopsy-chart [data-plot]")).to_have_attribute(
        "aria-label", re.compile("Last 60 seconds: 3 points")
    )
    expect(section.locator("canvas")).to_have_count(1)
    section.get_by_role("button", name="Batch 1, accumulation 4", exact=True).click()
    expect(page).to_have_url(re.compile(f"/jobs/{running.job_id + 1}$"))
    expect(page.locator("h1")).to_contain_text("live one (Batch 1, accumulation 4)")
