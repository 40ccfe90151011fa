"""Pages stay within the bytes that they may bring: scripts and styles, compressed as they are sent."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from app.core.jobs.models import Job

PLAIN_BYTES = 45_000
WITH_CHARTS_BYTES = 80_000
CHART_PAGES = frozenset({"/", "/jobs/1", "/gpu", "/compare"})


def _brought(client: TestClient, page: str) -> dict[str, int]:
    """{address: bytes on the wire} of a page's scripts and styles, with the modules that they import."""
    found: dict[str, int] = {}
    waiting = re.findall(r'(?:src|href)="(/static/[^"]+\.(?:js|css)[^"]*)"', client.get(page).text)
    while waiting:
        address = waiting.pop()
        if address in found:
            continue
        answer = client.get(address, headers={"Accept-Encoding": "gzip"})
        found[address] = int(answer.headers["content-length"])
        folder = address.rpartition("/")[0]
        waiting += [f"{folder}/{name}" for name in re.findall(r'from "\./([^"]+)"', answer.text)]
    return found


PAGES = (
    *("/", "/jobs", "/jobs/1", "/jobs/1/logs", "/jobs/new", "/queue", "/datasets", "/datasets/1", "/models"),
    *("/artifacts", "/playground", "/gpu", "/settings", "/compare"),
)


@pytest.mark.parametrize("page", PAGES)
def test_pages_stay_within_their_bytes(client: TestClient, make_job: Callable[..., Job], page: str) -> None:
    make_job()
    brought = _brought(client, page)
    assert len(brought) >= 6
    assert sum(brought.values()) <= (WITH_CHARTS_BYTES if page in CHART_PAGES else PLAIN_BYTES), brought


def test_the_shared_style_stays_small(client: TestClient) -> None:
    sizes = _brought(client, "/jobs")
    assert next(size for address, size in sizes.items() if "/app.css" in address) <= 8 * 1024
