"""Preference pairs in the browser: the answers beside each other where there is room, else one above the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import AXE

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("data_lane")]


def test_answers_stand_side_by_side_or_stacked(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "Q" * 200, "chosen": "yes " * 80, "rejected": "n" * 400}))
    page.goto("/datasets")
    page.get_by_label("File").set_input_files(path)
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/datasets/2")
    expect(page.get_by_role("heading", name="Chosen")).to_be_visible()
    page.get_by_text("As it came").click()
    for width, beside in ((1280, True), (360, False)):
        page.set_viewport_size({"width": width, "height": 800})
        chosen, rejected = (page.locator(f".{name}").bounding_box() for name in ("chosen", "rejected"))
        assert chosen is not None
        assert rejected is not None
        assert (rejected["x"] >= chosen["x"] + chosen["width"]) is beside
        assert (rejected["y"] >= chosen["y"] + chosen["height"]) is not beside
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    rules = {"runOnly": ["wcag2a", "wcag2aa"]}
    assert page.evaluate("(r) => axe.run('main', r).then((found) => found.violations)", rules) == []
