"""What a reader does with the charts of a job, by mouse and by keyboard."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Callable
from typing import Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy import insert

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import JobStatus
from app.core.metrics.models import MemoryReading, Metric
from app.core.metrics.pyramid import fold_all
from app.core.metrics.store import put_metrics
from tests.browser.axe import check_axe
from tests.browser.conftest import DEVICE, HOST, Feed, LiveServer

pytestmark = pytest.mark.browser

STEPS = 5000
CLIP = "clip"
SPIKE = 3333


@pytest.fixture
def long(database: Database, make_job: Callable[..., Job]) -> Feed:
    """A run of 5,000 steps, two a second, with one spike, and a reading of a GPU every minute."""
    feed = Feed(database, make_job("long one")).move(JobStatus.STARTING, JobStatus.RUNNING, phase="train")
    began = time.time() - STEPS / 2
    rows = []
    for step in range(1, STEPS + 1):
        loss = 40.0 if step == SPIKE else 2.0 + (step % 2) / 10
        values = {"loss": loss, "tokens": 100.0 * step, "learning_rate": 1e-4, "grad_norm": 1.0 + step % 3}
        values |= {"eval_loss": 1.5} if step % 500 == 0 else {}
        rows += [
            {"job_id": feed.job_id, "name": name, "step": step, "value": value, "time": began + step / 2}
            for name, value in values.items()
        ]
    with database.write() as session:
        session.execute(insert(Metric), rows)
        fold_all(session)
        for second in range(0, STEPS // 2, 60):
            data = {"available": True, "devices": [DEVICE], "host": HOST}
            session.add(MemoryReading(job_id=feed.job_id, time=began + second, data=data))
    return feed


def open_charts(page: Page, feed: Feed) -> Locator:
    """The chart of the loss, once it is drawn."""
    page.goto(f"/jobs/{feed.job_id}")
    loss = page.locator("[data-chart=loss]")
    expect(loss).not_to_have_attribute("data-points", "0")
    return loss


def x_range(page: Page, kind: str) -> tuple[float, float]:
    first, last = page.locator(f"[data-chart={kind}]").evaluate("(figure) => JSON.parse(figure.dataset.range)")
    return first, last


def drag(chart: Locator, start: float, end: float) -> None:
    """Over a share of the plot's width."""
    box = chart.locator(".u-over").bounding_box()
    assert box is not None
    page, y = chart.page, box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], y, steps=4)
    page.mouse.up()


def test_a_long_run_is_told_whole_by_few_rows_and_its_spike_survives(page: Page, long: Feed) -> None:
    rows: list[int] = []
    page.on("response", lambda r: rows.append(len(r.json()["series"]["loss"]["step"])) if "/series?" in r.url else None)
    loss = open_charts(page, long)
    expect(loss).to_have_attribute("data-points", str(STEPS))
    expect(loss.locator(".legend")).to_contain_text("band: least to most of each bucket")
    assert 0 < rows[0] <= 2 * 640
    loss.locator("[data-plot]").press("Home")
    assert float(loss.get_attribute("data-top") or 0) > 40
    assert "5000" not in page.locator("[data-chart=loss] script").all_inner_texts()


def test_zoom_by_drag_shows_every_point_of_the_part_in_all_charts_and_is_reset(page: Page, long: Feed) -> None:
    loss = open_charts(page, long)
    whole = page.get_by_role("button", name="Whole run")
    expect(whole).to_be_disabled()
    drag(loss, 0.65, 0.68)
    expect(loss.locator(".legend")).not_to_contain_text("band:")  # finer rows have come: single points
    first, last = x_range(page, "loss")
    assert 3200 < first < SPIKE < last < 3450
    assert x_range(page, "grad_norm") == (first, last)
    time_first, time_last = x_range(page, "memory")
    assert time_last - time_first == pytest.approx((last - first) / 2, abs=2)
    whole.click()
    expect(whole).to_be_disabled()
    assert x_range(page, "loss")[1] == STEPS


def test_a_finger_along_a_chart_zooms_and_one_across_it_does_not(
    browser: Browser, server: LiveServer, long: Feed
) -> None:
    context = browser.new_context(
        base_url=server.url, viewport={"width": 360, "height": 800}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    loss = open_charts(page, long)
    loss.scroll_into_view_if_needed()
    box = loss.locator(".u-over").bounding_box()
    assert box is not None
    at = [(box["x"] + share * box["width"], box["y"] + 60) for share in (0.2, 0.35, 0.5)]
    touched = context.new_cdp_session(page)

    def finger(kind: str, *points: tuple[float, float]) -> None:
        touched.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

    with page.expect_response(lambda answer: "touch.js" in answer.url):
        finger("touchStart", at[0])
        finger("touchEnd")
    expect(loss.locator("[data-readout]")).to_contain_text("step ")
    finger("touchStart", at[0])
    finger("touchMove", at[1])
    finger("touchMove", at[2])
    finger("touchEnd")
    expect(page.get_by_role("button", name="Whole run")).to_be_enabled()
    first, last = x_range(page, "loss")
    assert (first, last) == (pytest.approx(0.2 * STEPS, abs=60), pytest.approx(0.5 * STEPS, abs=60))
    finger("touchStart", at[0])
    for down in (40, 80, 120):
        finger("touchMove", (at[0][0], at[0][1] - down))
    finger("touchEnd")
    assert x_range(page, "loss") == (first, last)
    context.close()


TICKS = """
window.cut = [];
const fillText = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
  const width = this.measureText(text).width, share = { center: 0.5, right: 1, end: 1 }[this.textAlign] ?? 0;
  const { e, a } = this.getTransform(), left = a * (x - share * width) + e;
  if (/[0-9]/.test(text) && (left < 0 || left + a * width > this.canvas.width)) cut.push(text);
  return fillText.call(this, text, x, y);
};
"""


def test_no_tick_is_cut_off(page: Page, database: Database, long: Feed) -> None:
    """A cut 60,000 reads 6,000, and a cut 0.0001975 reads .0001975."""
    more = [
        {"job_id": long.job_id, "name": name, "step": step, "value": value, "time": time.time() + step}
        for step in (60_000, 99_999)
        for name, value in (("loss", 1.0), ("learning_rate", 9.75e-5))
    ]
    with database.write() as session:
        session.execute(insert(Metric), more)
    page.add_init_script(TICKS)
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 4000})
        open_charts(page, long)
        for axis in ("step", "time", "tokens"):
            drawn = page.locator("[data-chart=learning_rate]").get_attribute("data-drawn") or ""
            page.locator("select[name=axis]").select_option(axis)
            if axis != "step":
                expect(page.locator("[data-chart=learning_rate]")).not_to_have_attribute("data-drawn", drawn)
            expect(page.locator("[data-chart=learning_rate]")).not_to_have_attribute("data-points", "0")
        assert page.evaluate("cut") == []


def test_the_cursor_is_one_over_all_charts(page: Page, long: Feed) -> None:
    loss = open_charts(page, long)
    box = loss.locator(".u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    told = re.compile(r"step 2,[45]\d\d: ")
    expect(loss.locator("[data-readout]")).to_contain_text(told)
    expect(page.locator("[data-chart=grad_norm] [data-readout]")).to_contain_text(told)
    expect(page.locator("[data-chart=memory] [data-readout]")).to_contain_text("VRAM used")
    page.mouse.move(5, 5)
    expect(page.locator("[data-chart=grad_norm] [data-readout]")).to_have_text("")


def test_a_chart_is_read_by_keyboard(page: Page, long: Feed) -> None:
    loss = open_charts(page, long)
    plot, spoken = loss.locator("[data-plot]"), loss.locator("[data-spoken]")
    plot.press("End")
    expect(spoken).to_contain_text("step 5,000: loss 2")
    plot.press("Home")
    at_start = spoken.inner_text()
    plot.press("ArrowRight")
    expect(spoken).not_to_have_text(at_start)
    plot.press("ArrowLeft")
    expect(spoken).to_have_text(at_start)
    plot.press("End")
    for _ in range(5):
        plot.press("+")
    first, last = x_range(page, "loss")
    assert last - first < STEPS / 16
    assert last == STEPS
    plot.press("-")
    plot.press("0")
    expect(spoken).to_have_text("The whole run is shown.")
    assert x_range(page, "loss") == (x_range(page, "grad_norm")[0], STEPS)


def test_x_is_step_time_or_tokens_and_stays_chosen(page: Page, long: Feed) -> None:
    loss = open_charts(page, long)
    axis = page.locator("select[name=axis]")
    axis.select_option("tokens")
    expect(loss).to_have_attribute("data-range", re.compile(r",500000\]$"))
    axis.select_option("time")
    expect(loss).to_have_attribute("data-range", re.compile(r"^\[1\d{9}"))
    loss.locator("[data-plot]").press("End")
    expect(loss.locator("[data-spoken]")).to_contain_text(re.compile(r"20\d\d"))
    page.get_by_label("Smoothing").fill("0.9")
    page.get_by_label("log y").check()
    page.reload()
    expect(page.locator("select[name=axis]")).to_have_value("time")
    expect(page.get_by_label("Smoothing")).to_have_value("0.9")
    expect(page.get_by_label("log y")).to_be_checked()


def test_without_storage_the_charts_work_with_their_defaults(page: Page, long: Feed) -> None:
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    loss = open_charts(page, long)
    page.get_by_label(CLIP).check()
    expect(loss.locator(".legend")).to_contain_text("y clipped")


def test_a_log_axis_takes_odd_ranges_and_says_what_it_cannot_show(page: Page, running: Feed) -> None:
    running.step(4, loss=0.0)
    running.step(5, loss=-3.0)
    running.step(6, loss=0.00317)
    running.step(7, loss=7321.5)
    loss = open_charts(page, running)
    page.get_by_label("log y").check()
    expect(loss.locator(".legend")).to_contain_text("2 at or below 0, which a log axis cannot show")
    drag(loss, 0.9, 0.97)
    loss.locator("[data-plot]").press("End")
    expect(loss.locator("[data-spoken]")).to_contain_text(re.compile("loss (0.00317|7322)"))


def test_clip_leaves_the_spike_out_of_the_scale(page: Page, long: Feed) -> None:
    loss = open_charts(page, long)
    assert float(loss.get_attribute("data-top") or 0) > 40
    page.get_by_label(CLIP).check()
    expect(loss).to_have_attribute("data-top", re.compile(r"^2\."))
    page.get_by_label(CLIP).uncheck()
    expect(loss).to_have_attribute("data-top", re.compile(r"^4\d"))


def test_follow_keeps_the_newest_point_in_sight_and_off_stands_still(page: Page, running: Feed) -> None:
    open_charts(page, running)
    running.step(4, loss=0.5)
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-range", "[1,4]")
    page.get_by_label("follow").uncheck()
    running.step(5, loss=0.5)
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-points", "5")
    assert x_range(page, "loss") == (1, 4)
    page.get_by_role("button", name="Whole run").click()
    expect(page.locator("[data-chart=loss]")).to_have_attribute("data-range", "[1,5]")
    expect(page.get_by_label("follow")).to_be_checked()


def test_values_that_are_not_finite_are_gaps_with_a_mark(page: Page, database: Database, running: Feed) -> None:
    with database.write() as session:
        put_metrics(session, running.job_id, 2, time.time(), {"loss": None})
    loss = open_charts(page, running)
    expect(loss.locator(".legend")).to_contain_text("1 not finite")
    loss.locator("summary").click()
    expect(loss.locator("tbody tr").nth(1)).to_contain_text("n/a")
    loss.locator("[data-plot]").press("Home")
    loss.locator("[data-plot]").press("ArrowRight")
    expect(loss.locator("[data-spoken]")).to_have_text("step 2: no finite value")


def test_checkpoints_attempts_and_the_end_are_marked(page: Page, database: Database, running: Feed) -> None:
    with database.write() as session:
        session.add(Artifact(job_id=running.job_id, kind="checkpoint", path="c", step=2, bytes=1, created_at=1.0))
        session.add(Attempt(job_id=running.job_id, number=2, fence=2, started_at=time.time() - 1))
    loss = open_charts(page, running)
    expect(loss.locator(".legend")).to_contain_text("▼ checkpoint")
    expect(loss.locator(".legend")).to_contain_text("↻ another attempt")
    loss.locator("[data-plot]").press("Home")
    loss.locator("[data-plot]").press("ArrowRight")
    expect(loss.locator("[data-spoken]")).to_contain_text("checkpoint of step 2")
    running.move(JobStatus.FAILED, error={"kind": "out_of_memory", "message": "m", "advice": "a"})
    expect(loss.locator(".legend")).to_contain_text("✕ out of memory")


def test_a_chart_is_saved_as_picture_and_as_every_point(page: Page, long: Feed) -> None:
    loss = open_charts(page, long)
    with page.expect_download() as picture:
        loss.get_by_role("button", name="Loss: save as PNG").click()
    assert picture.value.suggested_filename == f"loradeck-job-{long.job_id}-loss.png"
    assert picture.value.path().read_bytes().startswith(b"\x89PNG")
    with page.expect_download() as file:
        loss.get_by_role("link", name="Loss: every point as CSV").click()
    rows = list(csv.reader(file.value.path().read_text().splitlines()))
    assert (rows[0], len(rows)) == (["step", "time", "loss", "eval_loss"], STEPS + 1)
    assert rows[SPIKE][2] == "40.0"
    with page.expect_download() as readings:
        page.get_by_role("link", name="Memory: every point as CSV").click()
    rows = list(csv.reader(readings.value.path().read_text().splitlines()))
    assert (rows[0][:2], len(rows)) == (["time", "vram_used_bytes"], 1 + len(range(0, STEPS // 2, 60)))


def test_smoothing_never_hides_the_raw_line(page: Page, long: Feed) -> None:
    loss = open_charts(page, long)
    expect(loss.locator(".legend li")).to_contain_text(["loss", "smoothed loss", "eval loss"])
    page.get_by_label("Smoothing").fill("0")
    expect(loss.locator(".legend")).not_to_contain_text("smoothed")
    expect(loss.locator(".legend li").first).to_have_text("loss")


@pytest.mark.parametrize("factor", [0.6, 0.98])
def test_smoothing_buckets_comes_to_what_smoothing_every_point_does(page: Page, long: Feed, factor: float) -> None:
    open_charts(page, long)
    worst = page.evaluate(
        """async (factor) => {
            const base = document.querySelector("script[type=module]").src;
            const { smooth } = await import(new URL("smooth.js", base));
            const points = Array.from({ length: 200_000 }, (_, step) => step);
            const values = points.map((step) => 2 / (1 + step / 2e4) + Math.sin(step * 12.9898) * 0.3);
            const width = 128, x = [], means = [];
            for (let at = 0; at < points.length; at += width) {
                x.push(Math.min(at + width, points.length) - 1);
                const part = values.slice(at, at + width);
                means.push(part.reduce((sum, value) => sum + value, 0) / part.length);
            }
            const every = smooth(points, values, factor), few = smooth(x, means, factor);
            return Math.max(...few.map((value, row) => (row < 20 ? 0 : Math.abs(value - every[x[row]]))));
        }""",
        factor,
    )
    assert worst < 0.01  # of a range of 2


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_charts_in_every_state_have_no_axe_violation(
    browser: Browser, server: LiveServer, long: Feed, theme: str, width: int
) -> None:
    scheme: Literal["light", "dark"] = "dark" if theme == "dark" else "light"
    context = browser.new_context(
        base_url=server.url, viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    loss = open_charts(page, long)
    for details in page.locator("[data-table] summary").all():
        details.click()
    loss.locator("[data-plot]").press("+")
    page.get_by_label("log y").check()
    check_axe(page, width)
    context.close()
