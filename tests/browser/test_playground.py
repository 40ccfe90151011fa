"""The playground as a person uses it: by keyboard, with answers that come bit by bit over the page's one stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from app.core.artifacts.models import Artifact
from app.core.chats.turns import list_turns, take_answer
from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from tests.browser.conftest import AXE, Feed, LiveServer
from tests.browser.test_pages import RULES

pytestmark = pytest.mark.browser

EVIL = "</p><img src=//evil.test/x onerror=alert(1)><b hx-delete=/jobs/1 hx-trigger=load>![](http://evil.test/?q=)"
RUNNING = (JobStatus.STARTING, JobStatus.RUNNING)


class Talk:
    """Writes what the worker would write for a chat."""

    def __init__(self, database: Database, chat_id: int) -> None:
        self._database, self._chat_id = database, chat_id

    def move(self, *statuses: JobStatus, **fields: Any) -> None:
        with self._database.write() as session:
            for status in statuses:
                queue.advance(session, queue.get_job(session, self._chat_id), status, **fields)

    def piece(self, side: str, at: int, text: str) -> None:
        with self._database.write() as session:
            turn = list_turns(session, queue.get_job(session, self._chat_id))[-1]
            data = {"turn": turn.id, "side": side, "at": at, "text": text, "tokens": 1}
            log.append(session, EventKind.PIECE, data, job_id=self._chat_id)

    def answer(self, side: str, text: str) -> None:
        with self._database.write() as session:
            chat = queue.get_job(session, self._chat_id)
            turn = list_turns(session, chat)[-1]
            data = {"turn": turn.id, "side": side, "text": text, "tokens": 9, "stop_reason": "eos", "seconds": 3.0}
            take_answer(session, chat, data, 5.0)

    def stop_requested(self) -> bool:
        with self._database.read() as session:
            return list_turns(session, queue.get_job(session, self._chat_id))[-1].stop_requested


@pytest.fixture
def trained(database: Database, make_job: Callable[..., Job]) -> Job:
    job = make_job("mine")
    Feed(database, job).move(*RUNNING, JobStatus.COMPLETED)
    with database.write() as session:
        for kind, path, step in (("checkpoint", "checkpoints/step-3", 3), ("adapter", "adapter", 9)):
            session.add(Artifact(job_id=job.key, kind=kind, path=path, step=step, bytes=1, created_at=0.0))
    return job


@pytest.fixture
def ask(page: Page, database: Database, trained: Job) -> Callable[[str], Talk]:
    """Start a chat by keyboard alone."""

    def ask(prompt: str) -> Talk:
        page.goto("/playground")
        page.locator("#chat-prompt").focus()
        page.keyboard.type(prompt)
        page.keyboard.press("Enter")
        page.wait_for_url("**/playground/2")
        expect(page.locator(".answer[data-answer]")).to_have_count(2)
        return Talk(database, 2)

    return ask


def test_answers_arrive_bit_by_bit_and_the_next_question_follows(page: Page, ask: Callable[[str], Talk]) -> None:
    talk = ask("Why?")
    talk.move(*RUNNING)
    base, tuned = (page.locator(f"[data-answer='1-{side}']") for side in ("base", "tuned"))
    page.evaluate("window.stayed = true")
    for at, text in ((0, "A 👍🏽 is"), (5, "was a"), (10, " sign")):
        talk.piece("base", at, text)
    expect(base).to_have_text("A 👍🏽 was a sign")
    expect(page.locator("#chat-announced")).to_have_text("")
    talk.answer("base", "A 👍🏽 was a sign.")
    expect(base).to_have_text("A 👍🏽 was a sign.")
    expect(page.locator("#conversation")).to_have_attribute("aria-busy", "true")
    talk.piece("tuned", 0, "Aye")
    expect(tuned).to_have_text("Aye")
    page.keyboard.type("And so")  # while it answers; the form has the focus
    talk.answer("tuned", "Aye, captain.")
    expect(page.locator("#chat-announced")).to_have_text("The answer is complete.")
    expect(page.locator(".answer")).to_have_text(["A 👍🏽 was a sign.", "Aye, captain."])
    expect(page.locator(".said .facts").last).to_contain_text("9 tokens, 3 a second")
    expect(page.locator("#chat-prompt")).to_have_value("And so")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("on?")
    page.keyboard.press("Enter")
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".turn .prompt").last).to_contain_text("And so\non?")
    expect(page.locator("#chat-prompt")).to_have_value("")
    expect(page.locator("#chat-prompt")).to_be_focused()
    assert page.evaluate("window.stayed")


def test_reload_in_mid_answer_shows_the_same_and_goes_on(page: Page, ask: Callable[[str], Talk]) -> None:
    talk = ask("Why?")
    talk.move(*RUNNING)
    talk.piece("base", 0, "It is")
    expect(page.locator("[data-answer='1-base']")).to_have_text("It is")
    page.reload()
    expect(page.locator("[data-answer='1-base']")).to_have_text("It is")
    talk.piece("base", 5, " so.")
    expect(page.locator("[data-answer='1-base']")).to_have_text("It is so.")


def test_stop_asks_for_the_end_of_the_answer(page: Page, ask: Callable[[str], Talk]) -> None:
    talk = ask("Why?")
    talk.move(*RUNNING)
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    page.get_by_role("button", name="Stop").press("Enter")
    expect(page.locator("#chat-prompt")).to_be_visible()
    page.wait_for_timeout(200)
    assert talk.stop_requested()


def test_hostile_answers_and_prompts_stay_text(page: Page, ask: Callable[[str], Talk]) -> None:
    """Any request elsewhere, any script and any dialog fails the test: see the page's fixture."""
    talk = ask(EVIL)
    talk.move(*RUNNING)
    talk.piece("base", 0, EVIL)
    expect(page.locator("[data-answer='1-base']")).to_have_text(EVIL)
    talk.answer("base", EVIL)
    talk.answer("tuned", EVIL)
    expect(page.locator("[data-answer]")).to_have_count(0)
    expect(page.locator(".answer")).to_have_text([EVIL, EVIL])
    page.get_by_role("button", name="Keep as sample").click()
    expect(page.locator("#chat-samples li > span")).to_have_text([EVIL])
    page.goto("/jobs/new?from=1")
    page.locator("summary", has_text="Sample prompts").click()
    page.get_by_role("button", name="Use the 1 kept in the playground").click()
    expect(page.locator("#field-sample_prompts")).to_have_value(EVIL)
    page.wait_for_timeout(300)
    assert page.locator("main img, main b[hx-delete]").count() == 0


def test_empty_question_is_refused_beside_its_field_and_nothing_typed_is_lost(page: Page, trained: Job) -> None:
    page.goto("/playground")
    page.locator("#chat-system").fill("Be brief.")
    page.locator("#chat-temperature").fill("hot")
    page.locator("#chat-prompt").press("Enter")
    expect(page.locator("#errors-prompt")).to_contain_text("is empty")
    expect(page.locator("#errors-temperature")).to_contain_text("valid number")
    expect(page.locator("#chat-system")).to_have_value("Be brief.")
    expect(page.locator("#chat-temperature")).to_have_value("hot")
    expect(page.locator("#chat-prompt")).to_be_focused()


def test_what_trains_is_told_live_and_the_choice_of_the_cpu_stays(
    page: Page, database: Database, trained: Job, make_job: Callable[..., Job]
) -> None:
    page.goto("/playground?job=1")
    feed = Feed(database, make_job("busy"))
    feed.read_devices()
    feed.move(*RUNNING)
    expect(page.locator("#chat-state")).to_contain_text("Job #2 (train) has the GPU now")
    page.locator("input[name=device][value=cpu]").check()
    feed.step(4, loss=1.0)
    expect(page.locator("#chat-state")).to_contain_text("step 4 of 10")
    expect(page.locator("input[name=device][value=cpu]")).to_be_checked()
    page.locator("#chat-prompt").fill("Why?")
    page.get_by_role("button", name="Send").click()
    page.wait_for_url("**/playground/3")
    with database.read() as session:
        assert queue.get_job(session, 3).spec["device"] == "cpu"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_chat_and_timeline_have_no_axe_violation_and_no_sideways_scroll(
    browser: Browser,
    server: LiveServer,
    database: Database,
    trained: Job,
    make_job: Callable[..., Job],
    ask: Callable[[str], Talk],
    theme: str,
    width: int,
) -> None:
    talk = ask("a" * 300)
    talk.move(*RUNNING, phase="idle")
    talk.answer("base", "b" * 300)
    talk.answer("tuned", "c d " * 90)
    with database.write() as session:
        for step, who in ((0, "base"), (3, "tuned"), (9, "tuned")):
            data = {"prompt": "p" * 300, "text": "So. " * 60, "model": who}
            log.append(session, EventKind.SAMPLE, data, job_id=trained.key, step=step)
    Feed(database, make_job("busy")).read_devices()
    scheme: Literal["light", "dark"] = "dark" if theme == "dark" else "light"
    context = browser.new_context(
        base_url=server.url, viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    for path in ("/playground", "/playground/2", f"/jobs/{trained.id}"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        page.evaluate(AXE.read_text(encoding="utf-8"))
        violations = page.evaluate("(rules) => axe.run(document, rules).then((found) => found.violations)", RULES)
        assert [(path, each["id"], each["nodes"][0]["html"]) for each in violations] == []
    context.close()


def test_checkpoint_is_kept_from_the_timeline(page: Page, server: LiveServer, database: Database, trained: Job) -> None:
    folder = server.app.state.folder.job(trained.key) / "checkpoints" / "step-3"
    folder.mkdir(parents=True)
    feed = Feed(database, trained)
    feed.sample("base", "Hm.")
    feed.sample("tuned", "Aye.")
    page.goto(f"/jobs/{trained.id}")
    table = page.locator("#job-samples table")
    expect(table.locator("thead th")).to_have_text(["Prompt", "Base model", "Step 3"])
    page.get_by_role("button", name="Keep step 3").press("Enter")
    expect(page.get_by_role("button", name="Kept: let go step 3")).to_be_visible()
    assert folder.with_name("step-3.kept").is_file()
    page.get_by_role("button", name="Kept: let go step 3").click()
    expect(page.get_by_role("button", name="Keep step 3")).to_be_visible()
    assert not folder.with_name("step-3.kept").exists()
    page.get_by_role("button", name="Chat step 3").click()
    expect(page.locator(".chat-main .facts")).to_contain_text("checkpoint of step 3")
