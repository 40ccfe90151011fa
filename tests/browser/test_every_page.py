"""Every page, in every state of the data folder that matters, in both themes and at both widths: no script error, no
sideways scroll, no violation that axe finds. One browser and one server a state; each page is loaded once a theme."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page

from app.core.database import Database
from app.core.datasets.store import add_file
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from app.core.settings import Settings
from tests.browser.conftest import AXE, LiveServer
from tests.browser.full_house import add_many, fill
from tests.conftest import LINEAR_MODULES, write_dataset
from tests.core.models.test_consent import own_code_folder
from tests.security.policy_table import routes

pytestmark = pytest.mark.browser

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
WIDTHS = (360, 1280)
MANY_JOBS = 10_000
Theme = Literal["light", "dark"]

# GET routes that are no pages: files, streams, regions of pages, data of charts. Each other one has to be walked.
NO_PAGES = re.compile(
    r"^(api_.*|static|openapi|stream_events|download.*|search_palette|show_frame|show_dataset_list|show_dataset_notes"
    r"|show_model_list|show_job_overview|show_job_marks|show_job_readings|show_job_series|show_targets|show_xray_link"
    r"|show_xray_row|show_check_result|show_chat_state|show_length_note)$"
)
# Pages that need what a data folder here does not hold; the tests of their features look at them.
LOOKED_AT_ELSEWHERE = {"show_chat", "show_sweep", "show_check"}

EMPTY = (
    *("/", "/jobs", "/jobs?q=x&status=failed", "/jobs/new", "/queue", "/datasets", "/models", "/artifacts"),
    *("/playground", "/gpu", "/settings", "/settings/notifications", "/adapters", "/compare", "/nowhere", "/jobs/1"),
    *("/jobs/x", "/queue/pause", "/account", "/users", "/audit"),
)
HOUSE = (
    *("/", "/jobs", "/jobs?page=201", "/jobs?page=999", "/jobs?sort=eval_loss&tag=night", "/jobs?q=%3Cscript%3E"),
    *("/jobs/new", "/jobs/new?from={completed}", "/jobs/new?method=qlora&task=dpo", "/queue"),
    *("/jobs/{running}", "/jobs/{starting}", "/jobs/{stopping}", "/jobs/{interrupted}", "/jobs/{completed}"),
    *("/jobs/{failed}", "/jobs/{no metrics}", "/jobs/{cancelled}", "/jobs/{queued}", "/jobs/{held}"),
    *("/jobs/{import}", "/jobs/{check}", "/jobs/{answer}", "/jobs/{completed}/logs", "/jobs/{completed}/logs?q=zz"),
    *("/jobs/{running}/logs?level=WARNING", "/jobs/{import}/logs", "/jobs/{completed}/config", "/jobs/{answer}/config"),
    *("/jobs/{completed}/samples", "/jobs/{queued}/samples", "/jobs/{import}/samples", "/jobs/{completed}/artifacts"),
    *("/jobs/selected?do=delete&ids={completed}&ids={queued}", "/jobs/selected?do=cancel", "/compare"),
    *("/compare?ids={running},{completed},{failed}", "/datasets", "/datasets/1", "/datasets/1/xray", "/models"),
    *(
        "/models/1",
        "/models/{own code}",
        "/settings/notifications",
        "/adapters",
        "/artifacts",
        "/artifacts?kind=gguf",
        "/playground",
        "/playground?job={completed}",
        "/gpu",
        "/settings",
    ),
)
CLOSED = ("/login", "/setup", "/jobs")


@dataclass
class State:
    """A server on a data folder, and the addresses to look at."""

    server: LiveServer
    paths: tuple[str, ...]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], State]]:
    """States by name; each is made when it is asked for first, and kept for the tests after it."""
    made: dict[str, State] = {}

    def get(name: str) -> State:
        if name not in made:
            made[name] = _make(tmp_path_factory.mktemp(name), name)
        return made[name]

    yield get
    for state in made.values():
        state.server.stop()


def _make(place: Path, name: str) -> State:
    auth: Literal["accounts", "off"] = "accounts" if name == "closed" else "off"
    settings = Settings(home=place / "home", cache=place / "cache", local_roots=[], auth=auth, _env_file=None)  # type: ignore[call-arg]
    folder = DataFolder(settings.home).create()
    database = Database(settings.effective_database_url)
    database.migrate(folder.backups)
    ids: dict[str, int] = {}
    if name == "house":
        _register(database, folder, place)
        ids = fill(database, folder)
        add_many(database, MANY_JOBS)
        ids["own code"] = _register_with_code(database, place / "own")
    paths = {"empty": EMPTY, "house": HOUSE, "closed": CLOSED}[name]
    database.engine.dispose()
    return State(LiveServer(settings), tuple(path.format_map(ids) for path in paths))


def _register(database: Database, folder: DataFolder, place: Path) -> None:
    (place / "tiny").mkdir()
    with database.write() as session:
        model = BaseModel(name="tiny", status=ModelStatus.READY, path=str(place / "tiny"), created_at=0.0)
        model.linear_modules = LINEAR_MODULES
        session.add(model)
        add_file(session, folder, write_dataset(place / "small.jsonl"), "small")


def _register_with_code(database: Database, place: Path) -> int:
    """A model that comes with Python code, which nobody has allowed."""
    path = str(own_code_folder(place))
    with database.write() as session:
        model = BaseModel(name="own", status=ModelStatus.READY, path=path, needs_code=True, created_at=1.0)
        session.add(model)
        session.flush()
        return model.key


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["empty", "house", "closed"])
def test_no_page_breaks(browser: Browser, serve: Callable[[str], State], name: str, theme: Theme) -> None:
    state = serve(name)
    context = browser.new_context(base_url=state.server.url, color_scheme=theme, reduced_motion="reduce")
    page = context.new_page()
    faults = _watch(page, state.server.url)
    for path in state.paths:
        response = page.goto(path)
        assert response is not None
        assert response.status < 500, path
        page.evaluate(AXE.read_text(encoding="utf-8"))
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            faults += [f"{path} at {width}, {theme}: {fault}" for fault in _look(page, width)]
    context.close()
    assert "\n".join(faults) == ""


def test_every_page_is_walked(serve: Callable[[str], State]) -> None:
    app = serve("empty").server.app
    pages = {name: path for name, method, path in routes(app) if method == "GET" and not NO_PAGES.match(name)}
    patterns = {name: re.sub(r"\{[^}]+\}", "[^/?]+", path) for name, path in pages.items()}
    walked = [path.partition("?")[0] for path in (*EMPTY, *HOUSE, *CLOSED)]
    missed = {name for name, pattern in patterns.items() if not any(re.fullmatch(pattern, path) for path in walked)}
    assert missed - LOOKED_AT_ELSEWHERE == set()


def _watch(page: Page, url: str) -> list[str]:
    """Gathers what must not happen: script errors, breaches of the policy, dialogs, requests to elsewhere."""
    faults: list[str] = []

    def note(what: str) -> None:
        faults.append(f"{page.url}: {what}")

    page.on(
        "console", lambda m: note(m.text) if m.type == "error" and "the server responded with" not in m.text else None
    )
    page.on("pageerror", lambda error: note(str(error)))
    page.on("dialog", lambda dialog: (note(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else note(f"asks {r.url}"))
    return faults


def _look(page: Page, width: int) -> list[str]:
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")  # charts follow the width
    scrolled = page.evaluate("document.documentElement.scrollWidth")
    found = page.evaluate("(rules) => axe.run(document, rules).then((result) => result.violations)", RULES)
    violations = [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]
    return violations + ([f"scrolls sideways: {scrolled} px"] if scrolled > width else [])
