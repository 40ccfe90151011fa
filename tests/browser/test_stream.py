"""Tabs that are cut off, hidden, forgotten or too many: none shows what is old as new, and none holds up another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from sqlalchemy import delete
from sqlmodel import col

from app.core.database import Database
from app.core.events import log
from app.core.events.models import Event
from tests.browser.conftest import PATIENCE_MS, Feed, LiveServer
from tests.live_server import Served, serve_process

pytestmark = pytest.mark.browser

# A page's own view of whether it is seen: headless tabs are all in front.
VISIBILITY = """
window.seen = SEEN;
Object.defineProperty(document, "hidden", { get: () => !window.seen });
window.show = (seen) => { window.seen = seen; document.dispatchEvent(new Event("visibilitychange")); };
"""


def _streams(server: LiveServer, lasting: bool = True) -> int:
    return sum(follower.lasting or not lasting for follower in list(server.app.state.tailer._followers))


def _wait_for_streams(server: LiveServer, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while _streams(server) != count:
        assert time.monotonic() < deadline, f"{_streams(server)} streams are open, not {count}"
        time.sleep(0.02)


def test_a_hidden_tab_lets_its_stream_go_and_replays_what_it_missed(
    page: Page, server: LiveServer, running: Feed
) -> None:
    page.add_init_script(VISIBILITY.replace("SEEN", "true"))
    page.goto(f"/jobs/{running.job_id}")
    _wait_for_streams(server, 1)
    page.evaluate("show(false)")
    _wait_for_streams(server, 0)
    for step in (4, 5):
        running.step(step, loss=3 / step)
    time.sleep(0.5)
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "3")
    page.evaluate("show(true)")
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "5")
    running.step(6, loss=0.5)
    expect(page.locator("#log")).to_have_text("".join(f"step {step}\n" for step in range(1, 7)))


def test_a_tab_that_is_hidden_while_it_connects_lets_its_stream_go(
    page: Page, server: LiveServer, running: Feed
) -> None:
    page.add_init_script(VISIBILITY.replace("SEEN", "true"))
    hide = (
        'addEventListener("htmx:before:request", (e) => { if (e.target.id === "stream") show(false); }, {once: true});'
    )
    page.add_init_script(hide)
    with page.expect_response("**/events?*"):
        page.goto(f"/jobs/{running.job_id}")
    _wait_for_streams(server, 0)
    running.step(4, loss=0.5)
    page.evaluate("show(true)")
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "4")


def test_a_tab_that_is_opened_out_of_sight_follows_once_it_is_seen(
    page: Page, server: LiveServer, running: Feed
) -> None:
    page.add_init_script(VISIBILITY.replace("SEEN", "false"))
    page.goto(f"/jobs/{running.job_id}")
    running.step(4, loss=0.5)
    time.sleep(0.5)
    assert _streams(server, lasting=False) == 0
    page.evaluate("show(true)")
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "4")


def test_a_tab_that_slept_long_is_read_anew_and_follows_from_there(
    page: Page, server: LiveServer, database: Database, running: Feed
) -> None:
    page.add_init_script(VISIBILITY.replace("SEEN", "true"))
    page.goto(f"/jobs/{running.job_id}")
    _wait_for_streams(server, 1)
    page.evaluate("show(false)")
    _wait_for_streams(server, 0)
    running.step(4, loss=0.5)
    with database.write() as session:  # what a replay would have told is no longer there
        session.exec(delete(Event).where(col(Event.kind) == "metric"))
    page.evaluate("lastHeard -= 10 * 60_000; show(true)")
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "4")
    _wait_for_streams(server, 1)
    running.step(5, loss=0.4)
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "5")
    expect(page.locator("#log")).to_have_text("".join(f"step {step}\n" for step in range(1, 6)))


def test_a_tab_whose_place_was_pruned_is_read_anew(
    page: Page, server: LiveServer, database: Database, running: Feed
) -> None:
    page.add_init_script(VISIBILITY.replace("SEEN", "true"))
    page.goto(f"/jobs/{running.job_id}")
    _wait_for_streams(server, 1)
    page.evaluate("show(false)")
    _wait_for_streams(server, 0)
    running.step(4, loss=0.5)
    with database.write() as session:
        session.exec(delete(Event).where(col(Event.kind).in_(["metric", "progress"])))
        log.mark_pruned(session, log.latest_id(session))
    with database.read() as session:
        _forget(server, log.latest_id(session))
    page.evaluate("show(true)")
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "4")
    running.step(5, loss=0.4)
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "5")
    expect(page.locator("#log")).to_have_text("".join(f"step {step}\n" for step in range(1, 6)))


def _forget(server: LiveServer, through: int) -> None:
    """As after a restart: what was read before, up to an id, has to come out of the log."""
    recent = server.app.state.tailer._recent
    while recent.last < through:
        time.sleep(0.05)
    recent.floor = recent.last


def test_the_seventh_tab_loads_at_once_and_all_of_them_follow(
    context: BrowserContext, page: Page, server: LiveServer, running: Feed
) -> None:
    """All seven are in front, as windows side by side are; a browser opens six connections to a host over HTTP/1.1."""
    pages = [page, *(context.new_page() for _ in range(6))]
    seconds = []
    for count, each in enumerate(pages, 1):
        began = time.monotonic()
        each.goto(f"/jobs/{running.job_id}")
        expect(each.locator("[data-chart=loss]")).to_have_attribute("data-points", "3")
        seconds.append(time.monotonic() - began)
        _wait_for_streams(server, min(count, 4))
    assert seconds[-1] < 1 + seconds[0]
    running.step(4, loss=0.5)
    for each in pages:
        expect(each.locator("[data-chart=loss]")).to_have_attribute("data-points", "4")
        expect(each.locator("#connection")).to_be_hidden()
    assert _streams(server) == 4


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve_process(tmp_path / "served") as served:
        yield served


def test_a_banner_tells_that_the_server_is_gone_until_it_is_back(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    assert served.process is not None
    page = browser.new_page()
    page.goto(served.url)
    expect(page.locator("#connection")).to_be_hidden()
    served.process.terminate()
    served.process.wait(timeout=20)
    expect(page.locator("#connection")).to_be_visible(timeout=10_000)
    expect(page.locator("#connection")).to_contain_text("trying again")
    with serve_process(served.home, LORADECK_PORT=served.url.rpartition(":")[2]):
        expect(page.locator("#connection")).to_be_hidden(timeout=20_000)
    page.close()
