"""The main job of the product by keyboard alone: from an empty dashboard to a demo job that is queued, watched and
downloaded. No pointer is used: what has the focus is pressed."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.datasets.store import add_file
from app.core.demo import DEMO_DATASET_NAME, DEMO_MODEL_NAME, demo_dataset_file
from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from tests.browser.conftest import Feed

pytestmark = pytest.mark.browser

_MOST_TABS = 80


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the target has the focus, and see that the focus shows."""
    for _ in range(_MOST_TABS):
        page.keyboard.press("Tab")
        if target.evaluate("(element) => element === document.activeElement"):
            outline = target.evaluate("(element) => getComputedStyle(element).outlineStyle")
            shadow = target.evaluate("(element) => getComputedStyle(element).boxShadow")
            assert outline != "none" or shadow != "none", "the focus cannot be seen"
            return
    raise AssertionError(f"{_MOST_TABS} tabs did not reach {target}")


@pytest.fixture
def demo(database: Database, folder: DataFolder, tmp_path: Path) -> None:
    """The demo's model and dataset, as after a first start."""
    (tmp_path / "demo").mkdir()
    with database.write() as session:
        path = str(tmp_path / "demo")
        session.add(BaseModel(name=DEMO_MODEL_NAME, status=ModelStatus.READY, path=path, created_at=0.0))
        add_file(session, folder, demo_dataset_file(), DEMO_DATASET_NAME)


@pytest.mark.usefixtures("demo")
def test_from_an_empty_dashboard_to_a_downloaded_adapter(page: Page, database: Database, folder: DataFolder) -> None:
    page.goto("/")
    tab_to(page, page.get_by_role("button", name="Run the demo job"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/1")
    expect(page.locator("#job-overview")).to_contain_text("position 1 in the queue")
    with database.read() as session:
        feed = Feed(database, session.get_one(Job, 1)).move(JobStatus.STARTING, JobStatus.RUNNING, phase="train")
    for step in (1, 2, 3):
        feed.step(step, loss=3.0 / step)
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "3")
    chart = page.locator("[data-chart=loss] [data-plot]")
    tab_to(page, chart)
    page.keyboard.press("ArrowRight")
    expect(page.locator("[data-chart=loss] [data-readout]")).to_contain_text("step")
    tab_to(page, page.get_by_role("link", name="Search the log"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/1/logs")
    page.keyboard.press("/")
    page.keyboard.type("step 2")
    expect(page.locator("#log-region")).to_contain_text("0 lines found")  # its file is not there in this test
    _finish(database, folder, feed)
    page.keyboard.press("Control+k")
    page.keyboard.type("#1")
    expect(page.locator("#palette [aria-selected=true]")).to_contain_text("completed")
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/1")
    download = page.get_by_role("button", name="Download adapter")
    tab_to(page, download)
    with page.expect_download() as downloaded:
        page.keyboard.press("Enter")
    assert downloaded.value.suggested_filename == "loradeck-job-1-adapter.zip"


def _finish(database: Database, folder: DataFolder, feed: Feed) -> None:
    """The job ends, and leaves an adapter."""
    place = folder.job(feed.job_id) / "adapter"
    place.mkdir(parents=True)
    (place / "weights").write_bytes(b"x")
    (place / "meta.json").write_text("{}")
    files = [
        {"path": "weights", "bytes": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
    ]
    with database.write() as session:
        session.add(
            Artifact(job_id=feed.job_id, kind="adapter", path="adapter", bytes=1, files=files, step=3, created_at=1.0)
        )
    feed.move(JobStatus.COMPLETED, summary={"train_loss": 1.0, "steps": 3})
