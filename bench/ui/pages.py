"""Every page: bytes, LCP, INP, CLS in Chromium; and how long the server takes for it."""

from __future__ import annotations

import time
from typing import Any

import httpx

from bench.ui.browser import open_page

PATHS = (
    "/",
    "/jobs",
    "/jobs?sort=eval_loss",
    "/jobs?q=run+99",
    "/jobs/new",
    "/jobs/{long}",
    "/jobs/{long}/overview",
    "/jobs/{long}/series?names=loss,eval_loss,learning_rate,grad_norm,tokens_per_second&buckets=1280",
    "/jobs/{long}/readings?buckets=1280",
    "/jobs/5",
    "/compare?ids=11,12,13,14,15",
    "/queue",
    "/datasets",
    "/models",
    "/playground",
    "/gpu",
    "/settings",
)
_WATCHED = ("/", "/jobs", "/jobs/new", "/jobs/{long}", "/compare?ids=11,12,13,14,15", "/queue", "/gpu")


def measure_server(url: str, long_job: int, rounds: int) -> dict[str, dict[str, float]]:
    """{path: {p50, p95}} in milliseconds, one request at a time, the first of each left out."""
    found: dict[str, dict[str, float]] = {}
    with httpx.Client(base_url=url, timeout=60) as client:
        for path in PATHS:
            real = path.format(long=long_job)
            client.get(real).raise_for_status()
            times = sorted(_timed(client, real) for _ in range(rounds))
            found[path] = {"p50": times[len(times) // 2], "p95": times[min(len(times) - 1, int(0.95 * len(times)))]}
    return found


def _timed(client: httpx.Client, path: str) -> float:
    began = time.perf_counter()
    client.get(path).raise_for_status()
    return round(1000 * (time.perf_counter() - began), 1)


def measure_pages(url: str, long_job: int) -> dict[str, dict[str, Any]]:
    """{path: {bytes, requests, streams, lcp, inp, cls}}: a first visit with an empty cache, and a press of a key."""
    found = {}
    for path in _WATCHED:
        with open_page() as (page, _, traffic):
            page.goto(url + path.format(long=long_job))
            page.wait_for_timeout(1500)
            page.keyboard.press("Tab")
            page.locator("#theme-toggle").click()
            page.wait_for_timeout(400)
            measured = page.evaluate("window.measured")
            found[path] = {
                "js_css_bytes": traffic.script_and_style,
                "all_bytes": sum(traffic.bytes.values()),
                "requests": traffic.requests,
                "streams": traffic.streams,
                "lcp_ms": round(measured["lcp"]),
                "inp_ms": round(measured["inp"]),
                "cls": round(measured["cls"], 4),
            }
    return found
