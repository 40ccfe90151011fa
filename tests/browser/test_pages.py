"""Every page in both themes and two widths, and what a person does on them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue_state import pause_queue
from app.core.jobs.status import JobStatus
from tests.browser.conftest import AXE, Feed, LiveServer

pytestmark = pytest.mark.browser

PATHS = [
    *("/", "/jobs", "/jobs/new", "/jobs/new?method=qlora&task=dpo", "/jobs/1", "/jobs/2"),
    *("/datasets", "/datasets/1", "/models", "/gpu", "/queue", "/settings", "/nowhere"),
]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
EVIL = "</script></pre><img src=x onerror=alert(1)><b hx-get=/jobs hx-trigger=load>hx</b>"
ERROR = {"kind": "x", "message": "It broke.", "advice": "Mend it.", "log_tail": ["last line", EVIL]}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_have_no_axe_violation_and_no_sideways_scroll(
    browser: Browser,
    server: LiveServer,
    database: Database,
    running: Feed,
    make_job: Callable[..., Job],
    theme: str,
    width: int,
) -> None:
    failed = Feed(database, make_job("a-name-without-any-space-" * 6))
    running.move(JobStatus.COMPLETED, summary={"train_loss": 1.0})
    running.sample("base", "a" * 300)
    failed.move(JobStatus.STARTING, JobStatus.RUNNING, JobStatus.FAILED, error=ERROR)
    make_job()
    with database.write() as session:
        pause_queue(session)
    scheme: Literal["light", "dark"] = "dark" if theme == "dark" else "light"
    context = browser.new_context(
        base_url=server.url, viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    for path in PATHS:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        page.evaluate(AXE.read_text(encoding="utf-8"))
        violations = page.evaluate("(rules) => axe.run(document, rules).then((found) => found.violations)", RULES)
        assert [(path, each["id"], each["nodes"][0]["html"]) for each in violations] == []
    context.close()


def test_points_log_and_progress_arrive_without_a_reload_and_a_reload_shows_the_same(page: Page, running: Feed) -> None:
    page.goto(f"/jobs/{running.job_id}")
    loss, memory = page.locator("[data-chart=loss]"), page.locator("[data-chart=memory]")
    expect(loss).to_have_attribute("data-points", "3")
    page.evaluate("window.stayed = true")
    running.step(4, loss=0.5, eval_loss=0.75)
    expect(loss).to_have_attribute("data-points", "4")
    expect(memory).to_have_attribute("data-points", "4")
    expect(loss.locator("[data-plot]")).to_have_attribute("aria-label", re.compile("4 points; .* eval loss 0.75"))
    expect(page.locator("#log")).to_contain_text("step 4")
    expect(page.locator("#job-overview")).to_contain_text("40 % · step 4/10 · ETA 1m 00s")
    assert page.evaluate("window.stayed")
    stayed = _picture(page)
    page.reload()
    expect(loss).to_have_attribute("data-points", "4")
    assert _picture(page) == stayed


def test_the_legend_and_the_table_name_only_series_that_hold_points(page: Page, running: Feed) -> None:
    page.goto(f"/jobs/{running.job_id}")
    loss = page.locator("[data-chart=loss]")
    expect(loss.locator(".legend li")).to_have_text(["loss", "smoothed loss"])
    loss.locator("summary").click()
    expect(loss.locator("th")).to_have_text(["step", "loss", "smoothed loss"])
    running.step(4, eval_loss=0.75)
    expect(loss.locator(".legend li")).to_have_text(["loss", "smoothed loss", "eval loss"])
    expect(loss.locator("th")).to_have_text(["step", "loss", "smoothed loss", "eval loss"])


@pytest.mark.parametrize("path", ["/jobs", "/datasets", "/models", "/gpu"])
def test_narrow_tables_show_every_cell_without_scrolling(
    page: Page, database: Database, running: Feed, path: str
) -> None:
    running.move(JobStatus.COMPLETED, summary={"train_loss": 1.0, "eval_loss": 1.25})
    running.read_devices()
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto(path)
    tables = page.locator("main .scroll:has(table)")
    expect(tables.first).to_be_visible()
    for table in tables.all():
        assert table.evaluate("(box) => box.scrollWidth - box.clientWidth") <= 0
    if path == "/jobs":
        expect(page.locator("#job-list tbody tr")).to_contain_text("1.25")
        label = "(cell) => getComputedStyle(cell, '::before').content"
        assert page.locator("#job-list td", has_text="1.25").evaluate(label) == '"eval loss "'


@pytest.mark.parametrize("slow", ["hx-sse.min.js", "charts/main.js", "app.js"])
def test_a_script_that_loads_slowly_costs_no_event(page: Page, running: Feed, slow: str) -> None:
    def delay(route: Route) -> None:
        time.sleep(0.4)
        running.step(4, loss=0.5)
        route.continue_()

    page.route(f"**/{slow}*", delay)
    page.goto(f"/jobs/{running.job_id}")
    running.step(5, loss=0.25)
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "5")
    expect(page.locator("#log")).to_contain_text("step 4\nstep 5")


def test_a_run_that_goes_on_after_an_interruption_draws_its_later_points_anew(page: Page, running: Feed) -> None:
    page.goto(f"/jobs/{running.job_id}")
    loss = page.locator("[data-chart=loss]")
    expect(loss).to_have_attribute("data-points", "3")
    running.go_on_from(1)  # its one loss and the smoothed one differ in the last bit, which is no range to draw
    expect(loss).to_have_attribute("data-points", "1")
    running.step(2, loss=9.5)
    running.step(3, loss=0.5)
    running.step(4, loss=0.25)
    expect(loss).to_have_attribute("data-points", "4")
    loss.locator("summary").click()
    rows = loss.locator("tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(2)).to_contain_text("step 2")
    expect(rows.nth(2)).to_contain_text("9.5")


def test_a_cut_stream_goes_on_without_a_gap_or_a_repeat(page: Page, server: LiveServer, running: Feed) -> None:
    page.goto(f"/jobs/{running.job_id}")
    running.log("before the cut")
    expect(page.locator("#log")).to_contain_text("before the cut")
    server.cut_streams()
    running.log("during the cut")
    running.step(4, loss=1.0)
    expect(page.locator("#log")).to_contain_text("step 4")
    server.cut_streams()
    running.log("after the cut")
    expect(page.locator("#log")).to_contain_text("after the cut")
    lines = page.locator("#log").inner_text().splitlines()
    assert lines == ["step 1", "step 2", "step 3", "before the cut", "during the cut", "step 4", "after the cut"]
    expect(page.locator("#connection")).to_be_hidden()


def test_the_end_of_a_job_shows_without_a_reload_and_closes_its_stream(page: Page, running: Feed) -> None:
    page.goto(f"/jobs/{running.job_id}")
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    running.move(JobStatus.FAILED, error=ERROR)
    expect(page.locator("#job-error")).to_contain_text("It broke.")
    expect(page.locator("#job-error")).to_contain_text("Mend it.")
    expect(page.locator("#job-overview .status")).to_contain_text("failed")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    expect(page.locator("#stream")).to_have_count(0)
    assert page.title().startswith("failed · ")


def test_hostile_text_is_shown_and_nothing_of_it_runs(
    page: Page, database: Database, make_job: Callable[..., Job]
) -> None:
    feed = Feed(database, make_job(EVIL)).move(JobStatus.STARTING, JobStatus.RUNNING)
    feed.log(EVIL)
    page.goto(f"/jobs/{feed.job_id}")
    feed.log(f"live {EVIL}\u2028event: x\r")
    feed.sample("tuned", EVIL, prompt=EVIL)
    expect(page.locator("#log")).to_contain_text(f"live {EVIL}")
    expect(page.locator("#job-samples .answer").last).to_have_text(EVIL)
    expect(page.get_by_role("heading", level=1)).to_contain_text(EVIL)
    feed.move(JobStatus.FAILED, error={**ERROR, "message": EVIL, "advice": EVIL})
    expect(page.locator("#job-error p")).to_contain_text([EVIL, EVIL, "kind: x"])
    assert page.locator("main img, main [hx-trigger=load]:not(#stream)").count() == 0
    page.goto("/")
    expect(page.locator("#dashboard")).to_contain_text(EVIL)


def test_dashboard_follows_the_running_job_and_keeps_its_chart(page: Page, running: Feed) -> None:
    page.goto("/")
    loss = page.locator(f"#loss-chart-{running.job_id}")
    expect(loss).to_have_attribute("data-points", "3")
    canvas = loss.locator("canvas").element_handle()
    running.step(4, loss=0.5)
    expect(page.locator("#dashboard")).to_contain_text("40 % · step 4/10")
    expect(loss).to_have_attribute("data-points", "4")
    assert canvas.evaluate("(element) => element.isConnected")
    running.move(JobStatus.COMPLETED, summary={"eval_loss": 0.125})
    expect(page.locator("#dashboard")).to_contain_text("eval loss 0.125")
    expect(loss).to_have_count(0)


def test_dashboard_draws_the_chart_of_a_job_that_starts_while_it_is_open(
    page: Page, database: Database, make_job: Callable[..., Job]
) -> None:
    feed = Feed(database, make_job())
    page.goto("/")
    expect(page.locator(".queue")).to_contain_text("tiny on small")
    feed.move(JobStatus.STARTING, JobStatus.RUNNING)
    feed.step(1, loss=1.0)
    feed.step(2, loss=0.5)
    expect(page.locator(f"#loss-chart-{feed.job_id}")).to_have_attribute("data-points", "2")


def test_form_shows_each_fault_beside_its_field_and_keeps_what_was_typed(page: Page) -> None:
    page.goto("/jobs/new")
    page.get_by_label("Job name").fill("my job")
    page.get_by_label("Rank (r)").fill("-3")
    page.get_by_text("Advanced: LR schedule").click()
    page.get_by_label("Seed").fill("x")
    page.get_by_role("button", name="Add to queue").click()
    expect(page.locator("#errors-r")).to_contain_text("greater than or equal to 1")
    expect(page.locator("#errors-seed")).to_be_visible()
    expect(page.get_by_label("Rank (r)")).to_be_focused()
    expect(page.get_by_label("Rank (r)")).to_have_value("-3")
    expect(page.get_by_label("Job name")).to_have_value("my job")
    page.get_by_label("Rank (r)").fill("4")
    page.get_by_label("Seed").fill("1")
    page.get_by_role("button", name="Add to queue").click()
    page.wait_for_url("**/jobs/1")
    expect(page.get_by_role("heading", level=1)).to_contain_text("my job")
    expect(page.locator("#job-overview")).to_contain_text("position 1 in the queue")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#job-overview .status")).to_contain_text("cancelled")


@pytest.mark.usefixtures("data_lane")
def test_upload_names_the_bad_row_then_previews_the_mended_file(page: Page, tmp_path: Path) -> None:
    good = json.dumps({"prompt": "What is 2 + 2?", "completion": "4"})
    (tmp_path / "mine.jsonl").write_text(good + '\n{"prompt": "no answer", "completion": ""}\n')
    page.goto("/datasets")
    page.get_by_label("File").set_input_files(tmp_path / "mine.jsonl")
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#errors-file")).to_contain_text("row 2: completion: has no answer")
    (tmp_path / "mine.jsonl").write_text(good)
    page.get_by_label("File").set_input_files(tmp_path / "mine.jsonl")
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/datasets/3")
    expect(page.locator(".message-assistant")).to_have_text("assistant4")


def test_search_keeps_to_the_url_and_needs_no_button(page: Page, make_job: Callable[..., Job]) -> None:
    make_job("alpha")
    make_job("beta")
    page.goto("/jobs")
    page.get_by_label("Name").fill("alp")
    expect(page.locator("#job-list tbody tr")).to_have_count(1)
    assert "q=alp" in page.url
    page.reload()
    expect(page.locator("#job-list tbody tr")).to_have_count(1)


def test_theme_is_switched_and_remembered(page: Page, running: Feed) -> None:
    page.goto(f"/jobs/{running.job_id}")
    page.get_by_role("button", name="Theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.goto("/jobs")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_the_keyboard_reaches_the_content_first(page: Page) -> None:
    page.goto("/jobs")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Queue")).to_be_focused()


def _picture(page: Page) -> dict[str, object]:
    """What the reader sees of a job, charts as the series that they draw."""
    return {
        "log": page.locator("#log").inner_text(),
        "overview": page.locator("#job-overview").inner_text(),
        "charts": [each.get_attribute("aria-label") for each in page.locator("[data-plot]").all()],
    }
