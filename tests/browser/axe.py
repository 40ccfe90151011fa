"""Accessibility of a page as it stands, judged by axe-core."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

_AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}


def check_axe(page: Page, width: int) -> None:
    """No violation, and nothing to be scrolled sideways."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width, page.url
    page.evaluate(_AXE.read_text(encoding="utf-8"))
    violations = page.evaluate("(rules) => axe.run(document, rules).then((found) => found.violations)", _RULES)
    assert [(page.url, each["id"], each["nodes"][0]["html"]) for each in violations] == []
