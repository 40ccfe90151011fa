"""Buttons of a job and of the queue, as a person presses them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.jobs.status import JobStatus
from app.core.paths import DataFolder
from tests.browser.conftest import Feed
from tests.saved_states import save_states

pytestmark = pytest.mark.browser
MakeJob = Callable[..., Job]


def test_a_training_is_paused_and_goes_on(page: Page, database: Database, make_job: MakeJob) -> None:
    feed = Feed(database, make_job()).move(JobStatus.STARTING, JobStatus.RUNNING, phase="train")
    page.goto(f"/jobs/{feed.job_id}")
    overview, buttons = page.locator("#job-overview"), page.locator("#job-overview .title-row button")
    expect(buttons).to_have_text(["Save now", "Sample now", "Pause", "Stop & save", "Cancel"])
    page.get_by_role("button", name="Save now").click()
    expect(overview).to_contain_text("a checkpoint is saved after the step in hand")
    page.get_by_role("button", name="Pause").click()
    expect(overview).to_contain_text("its state is saved after the step in hand; then its process ends")
    expect(buttons).to_have_text(["Resume", "Cancel"])
    expect(page).to_have_title(re.compile("^pausing"))
    feed.move(JobStatus.STOPPING, JobStatus.INTERRUPTED, JobStatus.QUEUED)
    expect(overview.locator(".status")).to_have_text(re.compile("paused"))
    page.get_by_role("button", name="Resume").click()
    expect(overview.locator(".status")).to_have_text(re.compile("queued"))


def test_an_ended_training_goes_on_and_starts_again(
    page: Page, database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    job = make_job()
    feed = Feed(database, job).move(JobStatus.STARTING, JobStatus.RUNNING)
    feed.move(JobStatus.FAILED, step=40, max_steps=100)
    save_states(folder, job, 20, 40)
    page.goto(f"/jobs/{job.id}")
    page.get_by_role("button", name="Resume from step 40").click()
    expect(page.locator("#job-overview .status")).to_have_text(re.compile("queued"))
    feed.move(JobStatus.STARTING, JobStatus.FAILED)
    expect(page.locator("#job-overview .status")).to_have_text(re.compile("failed"))
    page.locator("#again summary").click()
    page.get_by_label("Start again from").select_option("step 20")
    page.get_by_role("button", name="Start again").click()
    expect(page.locator("#job-overview .status")).to_have_text(re.compile("queued"))
    with database.read() as session:
        assert get_job(session, job.key).start_from == 20


def test_the_queue_is_reordered_by_keyboard(page: Page, make_job: MakeJob) -> None:
    """The button that was pressed keeps the focus as its job moves, so that it can be pressed again."""
    for name in ("first", "second", "third"):
        make_job(name)
    page.goto("/queue")
    page.evaluate("window.stayed = true")
    names, told = page.locator("#queue tbody .name"), page.locator("#queue-told")
    page.locator("#up-3").focus()
    page.keyboard.press("Enter")
    expect(told).to_have_text("Job 3 is at place 2.")
    expect(names).to_have_text(["#1 first", "#3 third", "#2 second"])
    expect(page.locator("#up-3")).to_be_focused()
    page.keyboard.press("Enter")
    expect(told).to_have_text("Job 3 is at place 1.")
    expect(names).to_have_text(["#3 third", "#1 first", "#2 second"])
    expect(page.locator("#up-3")).to_be_focused()
    page.locator("#down-1").click()
    expect(names).to_have_text(["#3 third", "#2 second", "#1 first"])
    page.locator("#top-1").click()
    expect(names).to_have_text(["#1 first", "#3 third", "#2 second"])
    assert page.evaluate("window.stayed")


def test_the_queue_is_paused_and_says_so_elsewhere(page: Page, make_job: MakeJob) -> None:
    job = make_job()
    page.goto("/queue")
    page.get_by_label("After a failed training").select_option("pause the queue")
    expect(page.locator("#queue-told")).to_have_text("After a failed training the queue pauses.")
    page.get_by_role("button", name="Pause the queue").click()
    expect(page.locator(".queue-banner")).to_contain_text("The queue is paused.")
    page.locator("#hold-1").click()
    expect(page.locator("#waiting-1 .status")).to_have_text(re.compile("paused"))
    for path in ("/", "/jobs", "/jobs/new", f"/jobs/{job.id}"):
        page.goto(path)
        expect(page.locator(".queue-banner")).to_contain_text("No training and no answer on the GPU starts")
    page.get_by_role("button", name="Resume the queue").click()
    expect(page.get_by_role("button", name="Pause the queue")).to_be_visible()
    expect(page.get_by_label("After a failed training")).to_have_value("pause")
