"""Rows 34, 45 and 104: what works where the dashboard is reached over plain HTTP by the name of a box on the LAN."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from app.core.jobs.spec import parse_spec, parse_yaml
from app.core.settings import Settings
from tests.browser.conftest import CHROMIUM_FLAGS, LiveServer

pytestmark = pytest.mark.browser

MODIFIER = "Control"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Without accounts a name of the LAN has to be listed."""
    return settings.model_copy(update={"allowed_hosts": ["box.local"]})


@pytest.fixture
def lan_page(server: LiveServer, tmp_path: Path) -> Iterator[Page]:
    """A page of `box.local`, which is no secure context."""
    flags = [*CHROMIUM_FLAGS, "--host-resolver-rules=MAP box.local 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(base_url=server.url.replace("127.0.0.1", "box.local"))
        page.set_default_timeout(20_000)
        yield page
        browser.close()


def test_row_34_the_command_is_copied_where_browsers_withhold_the_clipboard(lan_page: Page) -> None:
    lan_page.goto("/jobs/new")
    assert lan_page.evaluate("isSecureContext") is False
    lan_page.get_by_label("Job name").fill("it's mine")
    lan_page.get_by_label("Rank (r)").fill("24")
    expect(lan_page.locator("#command-text")).to_contain_text("r: 24")
    lan_page.get_by_role("button", name="Copy command").click()
    expect(lan_page.locator("#launch [role=status]")).to_have_text("copied")
    lan_page.get_by_text("Import YAML").click()
    lan_page.get_by_label("or its text").focus()
    lan_page.keyboard.press(f"{MODIFIER}+V")
    pasted = lan_page.get_by_label("or its text").input_value()
    first, *rest, last = pasted.rstrip("\n").split("\n")
    assert (first, last) == ("loradeck jobs submit - --name 'it'\"'\"'s mine' <<'YAML'", "YAML")
    assert parse_yaml("\n".join(rest)) == parse_spec({"base_model": "tiny", "dataset": "small", "r": 24})


def test_row_45_the_page_says_why_this_browser_cannot_notify(lan_page: Page) -> None:
    lan_page.goto("/settings/notifications")
    expect(lan_page.locator("[data-notify-state]")).to_contain_text("This page came over plain HTTP")
    expect(lan_page.locator("[data-notify-toggle]")).to_be_hidden()
