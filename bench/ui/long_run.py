"""The page of a run of a million steps: until it can be used, and from a zoom to its redraw."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.ui.browser import open_page

_REPEATS = 5
# From the key to the first frame that shows the part, and to the one with the finer rows.
_ZOOM = """
async (key) => {
    const figure = document.querySelector("[data-chart=loss]"), plot = figure.querySelector("[data-plot]");
    const drawn = () => Number(figure.dataset.drawn), first = drawn(), began = performance.now();
    const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    plot.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    await frame();
    const shown = performance.now() - began, seen = drawn();
    while (key !== "0" && drawn() === seen && performance.now() - began < 3000) await frame();
    return { shown, fine: performance.now() - began, redrawn: seen > first };
}
"""


def measure_long_run(url: str, long_job: int) -> dict[str, Any]:
    """Milliseconds; `usable`: the loss is drawn and answers the keyboard."""
    usable, shown, fine, bytes_of_data = [], [], [], 0
    for _ in range(_REPEATS):
        with open_page() as (page, _, traffic):
            page.goto(f"{url}/jobs/{long_job}", wait_until="commit")
            page.locator("[data-chart=loss][data-drawn][data-range]:not(.no-points)").wait_for()
            page.locator("[data-chart=loss] [data-plot]").press("End")
            usable.append(page.evaluate("performance.now()"))
            page.wait_for_timeout(500)
            for key in ("+", "+", "+", "+"):
                told = page.evaluate(_ZOOM, key)
                assert told["redrawn"]
                shown.append(told["shown"])
                fine.append(told["fine"])
                page.wait_for_timeout(300)
            bytes_of_data = traffic.bytes.get("Fetch", 0)
    return {
        "usable_ms": round(median(usable)),
        "zoom_shown_ms": round(median(shown)),
        "zoom_shown_worst_ms": round(max(shown)),
        "zoom_fine_ms": round(median(fine)),
        "zoom_fine_worst_ms": round(max(fine)),
        "data_bytes": bytes_of_data,
    }
