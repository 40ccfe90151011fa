"""A real Chromium, and what it measures of a page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import CDPSession, Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-gpu"]
_OBSERVE = """
window.measured = { lcp: 0, cls: 0, inp: 0, long: [] };
const see = (type, act, more = {}) => new PerformanceObserver((list) => list.getEntries().forEach(act)).observe({ type, buffered: true, ...more });
see("largest-contentful-paint", (entry) => { measured.lcp = entry.startTime; });
see("layout-shift", (entry) => { if (!entry.hadRecentInput) measured.cls += entry.value; });
see("event", (entry) => { if (entry.interactionId) measured.inp = Math.max(measured.inp, entry.duration); }, { durationThreshold: 16 });
see("longtask", (entry) => { measured.long.push([Math.round(entry.startTime), Math.round(entry.duration)]); });
"""  # noqa: E501 - one observer a line


@dataclass
class Traffic:
    """What went over the wire, by the browser's own count: compressed bytes by kind of resource."""

    requests: int = 0
    streams: int = 0
    bytes: dict[str, int] = field(default_factory=dict)
    _kinds: dict[str, str] = field(default_factory=dict)

    def watch(self, session: CDPSession) -> None:
        """Count from now on."""
        session.send("Network.enable")
        session.on("Network.responseReceived", self._on_response)
        session.on("Network.loadingFinished", self._on_end)

    def _on_response(self, event: dict[str, Any]) -> None:
        self.requests += 1
        self._kinds[event["requestId"]] = event["type"]
        self.streams += event["response"]["mimeType"] == "text/event-stream"

    def _on_end(self, event: dict[str, Any]) -> None:
        kind = self._kinds.get(event["requestId"], "Other")
        self.bytes[kind] = self.bytes.get(kind, 0) + int(event["encodedDataLength"])

    @property
    def script_and_style(self) -> int:
        return self.bytes.get("Script", 0) + self.bytes.get("Stylesheet", 0)


@contextmanager
def open_page() -> Iterator[tuple[Page, CDPSession, Traffic]]:
    """A page of a browser with an empty cache, observed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.add_init_script(_OBSERVE)
        session, traffic = page.context.new_cdp_session(page), Traffic()
        traffic.watch(session)
        yield page, session, traffic
        browser.close()


def heap_bytes(session: CDPSession) -> int:
    """What is held once the rubbish is gone."""
    session.send("HeapProfiler.collectGarbage")
    return int(session.send("Runtime.getHeapUsage")["usedSize"])
