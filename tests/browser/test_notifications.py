"""Notifications in a browser: the settings section, and the browser's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from app.core import masking
from app.core.jobs.status import JobStatus
from app.core.settings import Settings
from tests.browser.conftest import Feed
from tests.receiver import Receiver, receive

pytestmark = pytest.mark.browser

COUNT = """
window.shown = [];
window.Notification = class extends EventTarget {
  static permission = "granted";
  static async requestPermission() { return "granted"; }
  constructor(title, options) { super(); window.shown.push([title, options.body]); }
};
"""


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(masking, "_known", set())
    return settings.model_copy(update={"notify_hosts": ["127.0.0.1"]})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as receiver:
        yield receiver


def test_row_45_a_receiver_is_set_and_tested(page: Page, receiver: Receiver) -> None:
    page.goto("/settings")
    page.get_by_role("link", name="Where they go, and when").click()
    page.get_by_label("Receiver").select_option("slack")
    page.get_by_label("Address", exact=True).fill("http://10.1.2.3/hook")
    page.get_by_role("button", name="Store").click()
    expect(page.locator("#errors-notify-url")).to_contain_text("LORADECK_NOTIFY_HOSTS")
    expect(page.get_by_label("Receiver")).to_have_value("slack")
    page.get_by_label("Address", exact=True).fill(receiver.url)
    page.get_by_role("button", name="Store").click()
    expect(page.locator("#notifications")).to_contain_text("They go to 127.0.0.1 …0ken")
    page.get_by_role("button", name="Send a test").click()
    expect(page.locator("#notifications")).to_contain_text("The test was sent: 127.0.0.1 answered 200.")
    assert receiver.bodies[0]["text"].startswith("✅ Loradeck: a test\nNotifications arrive here.")
    assert "s3cret" not in page.content()
    page.get_by_role("button", name="Tell nobody").click()
    expect(page.locator("#notifications")).to_contain_text("Nobody is told yet.")


def test_row_45_this_browser_says_when_a_job_ends(context: BrowserContext, page: Page, running: Feed) -> None:
    context.add_init_script(COUNT)
    page.goto("/settings/notifications")
    page.get_by_role("button", name="Notify me in this browser").click()
    expect(page.locator("[data-notify-state]")).to_have_text("On.")
    page.goto("/jobs")
    running.move(JobStatus.COMPLETED, summary={"eval_loss": 1.0612})
    expect(page.locator("tbody .status-completed")).to_have_count(1)
    assert page.evaluate("window.shown") == [[f"#{running.job_id} live one: completed", "eval loss 1.061"]]
    page.goto("/settings/notifications")
    page.get_by_role("button", name="Stop notifying me").click()
    expect(page.locator("[data-notify-state]")).to_have_text("Off.")
