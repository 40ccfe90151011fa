"""What every page has around its own matter: progress in title and icon, the palette, the sheet of shortcuts."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from tests.browser.conftest import Feed

pytestmark = pytest.mark.browser

DRAWN = re.compile("^data:image/png")


def test_progress_shows_in_title_and_icon_and_leaves_them_at_the_end(page: Page, running: Feed) -> None:
    page.goto(f"/jobs/{running.job_id}")
    expect(page).to_have_title(re.compile(r"^30 % · running · #1 live one"))
    running.step(5, loss=1.0)
    expect(page).to_have_title(re.compile(r"^50 % · "))
    expect(page.locator("#icon")).to_have_attribute("href", DRAWN)
    running.move(JobStatus.COMPLETED, summary={"train_loss": 1.0})
    expect(page).to_have_title(re.compile(r"^completed · "))
    expect(page.locator("#icon")).to_have_attribute("href", re.compile("favicon.svg"))


def test_a_page_without_a_stream_shows_the_progress_and_the_worker_that_is_down(page: Page, running: Feed) -> None:
    page.goto("/datasets")
    expect(page).to_have_title("30 % · Datasets · Loradeck")
    expect(page.locator("#worker-down")).to_contain_text("loradeck worker")
    running.read_devices()  # a worker that is alive
    running.step(6, loss=1.0)
    expect(page.locator("#worker-down")).to_have_count(0, timeout=20_000)
    expect(page).to_have_title("60 % · Datasets · Loradeck")


def test_the_palette_finds_a_job_by_its_number_and_name_and_goes_there(
    page: Page, make_job: Callable[..., Job]
) -> None:
    make_job("an alpha run")
    make_job("a beta run")
    page.goto("/datasets")
    upload = page.get_by_role("button", name="Upload")
    upload.focus()
    page.keyboard.press("Control+k")
    options = page.locator("#palette [role=option]")
    expect(options.first).to_be_visible()
    page.keyboard.type("beta")
    expect(options).to_have_text([re.compile("#2 a beta run")])
    expect(page.get_by_role("combobox")).to_have_attribute("aria-activedescendant", "palette-0")
    page.keyboard.press("Escape")
    expect(upload).to_be_focused()
    page.keyboard.press("Control+k")
    page.keyboard.type("#1")
    expect(options.first).to_contain_text("an alpha run")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/1")


def test_the_palette_does_what_it_offers(page: Page) -> None:
    page.goto("/jobs")
    page.keyboard.press("Control+k")
    page.keyboard.type("pause the")
    expect(page.locator("#palette [role=option]")).to_have_count(1)
    page.keyboard.press("Enter")
    page.wait_for_url("**/queue")
    expect(page.locator(".queue-banner")).to_contain_text("The queue is paused.")
    page.keyboard.press("Control+k")
    page.keyboard.type("no such thing")
    expect(page.locator("#palette")).to_contain_text("Nothing is called “no such thing”")
    page.keyboard.press("Enter")
    expect(page.locator("#palette")).to_be_visible()


def test_the_sheet_lists_the_keys_and_they_work_until_switched_off(page: Page) -> None:
    page.goto("/datasets")
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(sheet).to_contain_text("Playground")
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    page.keyboard.press("g")
    page.keyboard.press("j")
    page.wait_for_url("**/jobs")
    page.keyboard.press("/")
    expect(page.locator("main [type=search]")).to_be_focused()
    page.keyboard.type("?n")
    expect(page.locator("main [type=search]")).to_have_value("?n")
    page.get_by_role("button", name="Keyboard shortcuts").click()
    sheet.get_by_label("Shortcuts of a single letter").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(sheet).to_be_hidden()
