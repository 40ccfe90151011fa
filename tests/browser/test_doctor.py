"""The dataset doctor in the browser: it begins by itself, tells what it finds, and asks under a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.listing import list_jobs
from app.core.jobs.status import JobKind, JobStatus
from tests.browser.conftest import AXE
from tests.data_lane import DataLane
from tests.datasets.test_doctor import TOKENS, report

pytestmark = pytest.mark.browser


def test_a_dataset_is_checked_by_itself_and_then_under_a_model(
    page: Page, tmp_path: Path, data_lane: DataLane, database: Database
) -> None:
    path = tmp_path / "odd.jsonl"
    rows = [{"text": "lost \ufffd <b hx-get=/x hx-trigger=load>"}, {"text": "two"}, {"text": "two"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page.goto("/datasets")
    page.get_by_label("File").set_input_files(path)
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/datasets/2")
    doctor = page.locator("#doctor")
    expect(doctor).to_contain_text("All 3 rows can be used")
    doctor.get_by_text("Replacement characters").click()
    expect(doctor.get_by_role("link", name="Row 1")).to_be_visible()
    data_lane.paused = True
    doctor.get_by_label("Base model").select_option("tiny")
    doctor.get_by_label("Max length").fill("64")
    doctor.get_by_role("button", name="Check").click()
    expect(doctor).to_contain_text("Waits for the worker")
    expect(doctor.get_by_role("button", name="Cancel")).to_be_visible()
    with database.write() as session:
        job = list_jobs(session, kinds=[JobKind.CHECK]).jobs[0]
        for status in (JobStatus.STARTING, JobStatus.RUNNING):
            job = queue.advance(session, job, status)
        queue.advance(session, job, JobStatus.COMPLETED, summary=report(tokens=TOKENS))
    expect(doctor.get_by_role("img", name="200 of 1234 are longer than max_length, 64.")).to_be_visible()
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag22aa"]}
    assert page.evaluate("(r) => axe.run('main', r).then((found) => found.violations)", rules) == []


SHIFTS = """() => {
  window.shifted = 0;
  const add = (list) => list.getEntries().forEach((entry) => { window.shifted += entry.value; });
  new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });
}"""
FOUND = [{"row": 3, "field": "text", "kind": "mojibake", "message": "reads oddly"}]


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_moves_while_a_check_is_watched(
    page: Page, data_lane: DataLane, database: Database, width: int
) -> None:
    data_lane.paused = True
    page.set_viewport_size({"width": width, "height": 900})
    page.add_init_script(f"({SHIFTS})()")
    page.goto("/datasets/1")
    doctor = page.locator("#doctor")
    expect(doctor).to_contain_text("Waits for the worker")
    found = {"rows": 900, "unusable": 0, "counts": {"mojibake": 9}, "problems": FOUND}
    with database.write() as session:
        job = queue.advance(session, list_jobs(session, kinds=[JobKind.CHECK]).jobs[0], JobStatus.STARTING)
        job = queue.advance(session, job, JobStatus.RUNNING)
        job.summary, job.step, job.max_steps, job.eta_seconds = found, 40, 100, 90.0
        session.add(job)
    expect(doctor).to_contain_text("Found so far")
    expect(doctor).to_contain_text("40 % · 900 rows · ETA")
    with database.write() as session:
        done = report(counts={"mojibake": 9}, problems=FOUND, duplicates=1, duplicate_rows=[{"row": 2, "of": 1}])
        queue.advance(session, queue.get_job(session, job.key), JobStatus.COMPLETED, summary=done)
    expect(doctor).to_contain_text("Eval split")
    page.wait_for_timeout(200)
    assert page.evaluate("window.shifted") <= 0.02
