"""Accounts in a real browser: the first link, logins, what a viewer is offered, and a page whose login has ended."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from app.core.accounts.roles import Role
from app.core.accounts.sessions import end_sessions
from app.core.accounts.setup import get_setup_token
from app.core.accounts.users import add_user, get_user
from app.core.database import Database
from app.core.settings import Settings
from app.web import logged_out
from tests.browser.axe import check_axe
from tests.browser.conftest import LiveServer

pytestmark = pytest.mark.browser

PASSWORD = "correct horse battery"


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Accounts are on, and ended logins are looked for often."""
    monkeypatch.setattr(logged_out, "LOOK_SECONDS", 0.2)
    return settings.model_copy(update={"auth": "accounts"})


def _log_in(page: Page, database: Database, role: Role) -> None:
    with database.write() as session:
        add_user(session, role.value, PASSWORD, role)
    page.goto("/jobs")
    expect(page).to_have_url(re.compile(r"/login\?next=/jobs$"))
    page.get_by_label("Name").fill(role.value)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")


def _check(page: Page) -> None:
    for scheme in ("light", "dark"):
        for width in (360, 1280):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            page.set_viewport_size({"width": width, "height": 900})
            check_axe(page, width)


def test_the_link_makes_the_first_account_and_its_pages_are_accessible(page: Page, server: LiveServer) -> None:
    page.goto(f"/setup?token={get_setup_token(server.app.state.folder)}")
    _check(page)
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Make the account").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Dashboard")
    page.get_by_role("link", name="ann").click()
    page.locator("#token-name").fill("ci")
    page.get_by_role("button", name="New token").click()
    expect(page.locator("#new-token")).to_have_text(re.compile("^ldk_"))
    _check(page)
    page.set_viewport_size({"width": 1280, "height": 900})
    for path in ("/users", "/audit"):
        page.goto(path)
        _check(page)
    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    expect(page.get_by_role("navigation", name="Main")).to_have_count(0)
    _check(page)


def test_a_viewer_is_told_the_role_and_offered_nothing_that_changes(page: Page, database: Database) -> None:
    _log_in(page, database, Role.VIEWER)
    expect(page.get_by_role("note")).to_contain_text("Your role is viewer")
    for path in ("/", "/jobs", "/datasets", "/models", "/queue"):
        page.goto(path)
        forms = page.locator("main form[method=post]")
        assert [each.is_visible() for each in forms.all()].count(True) == 0, path
        expect(page.get_by_role("link", name="New job")).to_have_count(0)
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


def test_a_page_whose_login_has_ended_leads_to_the_login(
    browser: Browser, server: LiveServer, database: Database
) -> None:
    context = browser.new_context(base_url=server.url)  # its own: Chromium logs the 401 that is meant here
    page = context.new_page()
    _log_in(page, database, Role.MEMBER)
    expect(page.locator("#stream")).to_have_count(1)
    page.wait_for_timeout(500)  # the stream is open
    with database.write() as session:
        end_sessions(session, get_user(session, "member").key)
    expect(page).to_have_url(re.compile("/login"), timeout=20_000)
    context.close()
