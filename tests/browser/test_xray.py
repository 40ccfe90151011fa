"""The X-ray in the browser: it asks by itself, rows unfold when they are opened, the mask is seen without colour."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.core.database import Database
from app.core.datasets.xray import XRAY_FILE
from app.core.jobs import queue
from app.core.jobs.listing import list_jobs
from app.core.jobs.status import JobKind, JobStatus
from app.core.paths import DataFolder
from tests.browser.conftest import AXE

pytestmark = pytest.mark.browser

EVIL = "<img src=x onerror=alert(1)>\u202e"
TEXTS = ["<s>", "Say", " it.\n", "It", " is", EVIL, "</s>"]


def row(number: int, flags: list[str]) -> dict[str, Any]:
    tokens = [{"id": i, "text": t, "trained": i > 2, "special": t in ("<s>", "</s>")} for i, t in enumerate(TEXTS)]
    runs = [{"trained": False, "tokens": 3, "text": "<s>Say it.\n"}, {"trained": True, "tokens": 4, "text": "It is"}]
    sequence = {"name": None, "start": 0, "end": 7, "trained_tokens": 4, "total_tokens": 7, "kept": True, "runs": runs,
                "pack": None}  # fmt: skip
    return {"row": number, "tokens": tokens, "trained_tokens": 4, "total_tokens": 7, "left_out_tokens": 0,
            "flags": flags, "reason": None, "sequences": [sequence]}  # fmt: skip


def settle(database: Database, folder: DataFolder, summary: dict[str, Any], **fields: Any) -> None:
    """End the newest preview job as the worker does."""
    with database.write() as session:
        job = list_jobs(session, kinds=[JobKind.PREVIEW]).jobs[0]
        folder.job(job.key).mkdir(parents=True)
        (folder.job(job.key) / XRAY_FILE).write_text(json.dumps(fields))
        for to in (JobStatus.STARTING, JobStatus.RUNNING):
            job = queue.advance(session, job, to)
        queue.advance(session, job, JobStatus.COMPLETED, summary=summary)


def test_rows_come_by_themselves_and_unfold(page: Page, database: Database, folder: DataFolder) -> None:
    page.goto("/datasets/1")
    page.get_by_role("button", name="X-ray").click()
    expect(page.get_by_text("Waits for the worker")).to_be_visible()
    rows = [row(1, ["end_of_turn_trained"]), row(2, ["cut"])]
    facts = {"packing": None, "bos": "<s>", "eos": None, "default_template": False, "exact": True, "total": 4}
    settle(database, folder, {"first": 1, "last": 2}, first=1, last=2, rows=rows, **facts)
    first = page.locator("#row-1")
    expect(first.locator(".t.l")).to_have_count(4)
    expect(first.locator(".xray-tokens")).to_contain_text("onerror=alert(1)><U+202E>")
    expect(page.locator("#xray img")).to_have_count(0)
    assert "underline" in first.locator(".t.l").first.evaluate("(e) => getComputedStyle(e).textDecorationLine")
    second = page.locator("#row-2")
    expect(second.locator(".t")).to_have_count(0)
    second.locator("> summary").focus()
    page.keyboard.press("Enter")
    expect(second.locator(".t")).to_have_count(7)
    first.get_by_text("As text").click()
    expect(first.get_by_role("definition").last).to_have_text("It is")
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")  # no colour is halfway
        violations = page.evaluate("(rules) => axe.run('main', rules).then((found) => found.violations)", rules)
        assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []
    page.get_by_role("button", name="Next suspicious row: 2").first.click()
    page.wait_for_url("**/xray?row=2")
    page.get_by_role("button", name="Next suspicious row").first.click()
    expect(page.get_by_text("Waits for the worker")).to_be_visible()
    found = {"first": 4, "last": 4, "found": 4, "searched_to": 4}
    settle(database, folder, found, first=4, last=4, rows=[row(4, ["cut"])], **facts)
    page.wait_for_url("**/xray?row=4")
    expect(page.get_by_text("No suspicious row follows.").first).to_be_visible()
