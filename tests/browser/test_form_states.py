"""Every state of the new-job form, in both themes and two widths: no axe violation, no sideways scroll."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from app.core.datasets.models import Dataset
from app.core.jobs.models import Job
from app.core.models.models import BaseModel
from tests.browser.conftest import AXE, LiveServer
from tests.browser.test_pages import RULES
from tests.core.planning.conftest import CONFIGS

pytestmark = pytest.mark.browser

RECIPES = Path(__file__).parents[1] / "fixtures" / "recipes"


def _empty(page: Page) -> None:
    page.goto("/jobs/new?vram_gb=8")


def _faults(page: Page) -> None:
    page.goto("/jobs/new?r=0&warmup_ratio=9&learning_rate=x")
    page.get_by_role("button", name="Add to queue").click()
    expect(page.locator("#errors-r")).to_be_visible()


def _advanced(page: Page) -> None:
    page.goto("/jobs/new?method=qlora&vram_gb=24")
    for summary in page.locator("#job-form summary").all():
        summary.click()


def _imported(page: Page) -> None:
    page.goto("/jobs/new")
    page.get_by_text("Import YAML").click()
    page.get_by_label("or its text").fill((RECIPES / "axolotl-qlora.yml").read_text() + "rl: kto\n")
    page.get_by_role("button", name="Fill in the form").click()
    for summary in page.locator("#recipe details:not([open]) summary").all():
        summary.click()


def _no_import(page: Page) -> None:
    page.goto("/jobs/new")
    page.get_by_text("Import YAML").click()
    page.get_by_label("or its text").fill("r: [1")
    page.get_by_role("button", name="Fill in the form").click()
    expect(page.locator("#errors-import")).to_be_visible()


def _sweep(page: Page) -> None:
    page.goto("/jobs/new?vram_gb=24")
    page.get_by_text("Queue several jobs").click()
    page.get_by_label("Fields and their values").fill("learning_rate: 1e-4, 2e-4\nper_device_train_batch_size: 1, 64")
    expect(page.locator("#sweep tbody tr")).to_have_count(4)


def _sweep_page(page: Page) -> None:
    page.goto("/sweeps/1")


def _notifications(page: Page) -> None:
    page.goto("/settings/notifications")
    page.get_by_label("Address", exact=True).fill("http://10.0.0.1/")
    page.get_by_role("button", name="Store").click()
    expect(page.locator("#errors-notify-url")).to_be_visible()


STATES = (_empty, _faults, _advanced, _imported, _no_import, _sweep, _sweep_page, _notifications)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_no_state_of_the_form_has_a_violation(
    browser: Browser,
    server: LiveServer,
    registered: tuple[BaseModel, Dataset],
    make_job: Callable[..., Job],
    theme: str,
    width: int,
) -> None:
    shutil.copy(CONFIGS / "llama-3-8b.json", Path(registered[0].path or "") / "config.json")
    with server.app.state.database.write() as session:
        session.get_one(Job, make_job("a-name-without-any-space-" * 6).key).sweep_id = 1
    scheme: Literal["light", "dark"] = "dark" if theme == "dark" else "light"
    context = browser.new_context(
        base_url=server.url, viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(20_000)
    for reach in STATES:
        reach(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, reach.__name__
        page.evaluate(AXE.read_text(encoding="utf-8"))
        violations = page.evaluate("(rules) => axe.run(document, rules).then((found) => found.violations)", RULES)
        assert [(reach.__name__, each["id"], each["nodes"][0]["html"]) for each in violations] == []
    context.close()
