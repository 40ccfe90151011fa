"""A hub dataset is added in the browser; its page follows the import by itself, to the reason or to the rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.core.database import Database
from app.core.datasets.hub import set_facts
from app.core.datasets.models import Dataset
from app.core.datasets.store import rows_path
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus, Lane
from app.core.paths import DataFolder
from tests.browser.conftest import AXE
from tests.core.datasets.test_hub import FACTS

pytestmark = pytest.mark.browser

ROW = {"instruction": "Say 1.", "output": "It is 1."}


def _claim(database: Database) -> Job:
    with database.write() as session:
        job, _ = queue.claim_next(session, Lane.DATA) or pytest.fail("there is no import")
        return queue.advance(session, job, JobStatus.RUNNING)


def _end(database: Database, job: Job, status: JobStatus, **fields: Any) -> None:
    with database.write() as session:
        queue.advance(session, job, status, **fields)


def _fill(database: Database, folder: DataFolder, dataset_id: int) -> None:
    """What an import of one row leaves behind."""
    with database.write() as session:
        dataset = session.get_one(Dataset, dataset_id)
        path = rows_path(folder, dataset)
        path.parent.mkdir()
        path.with_name("source.jsonl").write_text(json.dumps(ROW))
        messages = [{"role": "user", "content": "Say 1."}, {"role": "assistant", "content": "It is 1."}]
        path.write_text(json.dumps({"messages": messages}))
        source = {**FACTS["source"], "files": [{"path": "train.jsonl", "rows": 1}]}
        set_facts(
            dataset, {**FACTS, "format": "alpaca", "kind": "messages", "rows": 1, "columns": {}, "source": source}
        )
        session.add(dataset)


def test_an_import_is_followed_to_its_failure_and_again_to_its_rows(
    page: Page, database: Database, folder: DataFolder
) -> None:
    page.goto("/datasets")
    page.get_by_role("button", name="Import").click()
    expect(page.locator("#errors-hub-hub_id")).to_contain_text("is not a hub id")
    page.get_by_label("Hub id").fill("owner/pairs")
    page.get_by_role("button", name="Import").click()
    page.wait_for_url("**/datasets/2")
    expect(page.locator("#dataset-import")).to_contain_text("waits in the queue")
    job = _claim(database)
    expect(page.locator("#dataset-import progress")).to_be_visible()
    _end(database, job, JobStatus.FAILED, error={"kind": "x", "message": "It has two splits.", "advice": "Name one."})
    expect(page.get_by_role("alert")).to_contain_text("It has two splits.")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    rules = {"runOnly": ["wcag2a", "wcag2aa"]}
    assert page.evaluate("(r) => axe.run('main', r).then((found) => found.violations)", rules) == []
    page.get_by_label("Split").fill("train")
    page.get_by_role("button", name="Import again").click()
    expect(page.locator("#dataset-import")).to_contain_text("from owner/pairs, split train")
    job = _claim(database)
    expect(page.locator("#dataset-import progress")).to_be_visible()
    _fill(database, folder, 2)
    _end(database, job, JobStatus.COMPLETED)
    expect(page.locator(".message-assistant")).to_have_text("assistantIt is 1.")
