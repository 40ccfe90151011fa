"""Columns of a file of unknown format are mapped in the browser, without choosing the file again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import AXE
from tests.data_lane import DataLane

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("data_lane")]


def test_columns_are_mapped_on_the_upload_form(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_text("question,answer,topic\nWhere is it?,Here.,places\n")
    page.goto("/datasets")
    page.get_by_label("File").set_input_files(path)
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#errors-file")).to_contain_text("the first row has the fields 'question', 'answer', 'topic'")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    rules = {"runOnly": ["wcag2a", "wcag2aa"]}
    assert page.evaluate("(r) => axe.run('#upload-form', r).then((found) => found.violations)", rules) == []
    page.get_by_label("question").select_option("prompt")
    page.get_by_label("answer").select_option("completion")
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/datasets/3")
    expect(page.locator(".facts").first).to_contain_text("format: prompt_completion")
    expect(page.locator(".message-assistant")).to_have_text("assistantHere.")


def test_an_upload_that_takes_longer_is_followed_and_mended_on_its_page(
    page: Page, tmp_path: Path, data_lane: DataLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.datasets.router.FORM_WAIT_SECONDS", 0.05)
    data_lane.paused = True
    path = tmp_path / "faq.csv"
    path.write_text("question,answer\nWhere is it?,Here.\n")
    page.goto("/datasets")
    page.get_by_label("File").set_input_files(path)
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/datasets/2")
    expect(page.locator("#dataset-import")).to_contain_text("waits in the queue")
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    data_lane.paused = False
    expect(page.get_by_role("alert")).to_contain_text("the first row has the fields 'question', 'answer'")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    rules = {"runOnly": ["wcag2a", "wcag2aa"]}
    assert page.evaluate("(r) => axe.run('#dataset-import', r).then(found => found.violations)", rules) == []
    page.get_by_label("question").select_option("prompt")
    page.get_by_label("answer").select_option("completion")
    page.get_by_role("button", name="Import again").click()
    expect(page.locator(".message-assistant")).to_have_text("assistantHere.")


def test_a_large_upload_shows_how_far_it_is_and_is_cancelled_or_refused_like_any(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    path.write_text(json.dumps({"prompt": "Q", "completion": "A" * 1000}) + "\n")
    path.write_text(path.read_text() * 6000)
    page.goto("/datasets")
    page.get_by_label("File").set_input_files(path)
    page.get_by_label("Name").nth(0).fill("small")  # is taken
    page.locator("#upload-form button[type=submit]").click()
    expect(page.locator("#errors-name")).to_contain_text("small")
    assert page.evaluate("document.activeElement.id") == "field-name"
    page.get_by_label("File").set_input_files(path)
    page.get_by_label("Name").nth(0).fill("")
    quarter = "this.upload.onprogress({ loaded: 2 ** 20, total: 2 ** 22 })"
    page.evaluate(f"() => {{ XMLHttpRequest.prototype.send = function () {{ {quarter} }} }}")
    page.locator("#upload-form button[type=submit]").click()
    row = page.locator("[data-upload]")
    expect(row).to_contain_text("25 % of 4 MiB")
    expect(row.locator("progress")).to_have_js_property("value", 0.25)
    page.evaluate("() => { XMLHttpRequest.prototype.abort = function () { this.onabort() } }")
    row.get_by_role("button", name="Cancel").click()
    expect(page.locator("[data-upload-state]")).to_have_text("The upload was cancelled; nothing of it is kept.")
    page.reload()
    page.get_by_label("File").set_input_files(path)
    page.locator("#upload-form button[type=submit]").click()
    expect(page.locator("[data-upload-state]")).to_contain_text("Its rows are being checked")
    page.wait_for_url("**/datasets/2")
    expect(page.locator("main")).to_contain_text("from large.jsonl")
