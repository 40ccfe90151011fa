"""The planned peak lies behind the readings of a GPU, component by component."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.core.database import Database
from app.core.metrics.models import MemoryReading
from app.core.models.models import BaseModel
from tests.browser.conftest import DEVICE, HOST, Feed

pytestmark = pytest.mark.browser

CONFIG = Path(__file__).parents[1] / "fixtures" / "configs" / "llama-3.2-1b.json"
PARTS = ("weights", "adapter", "activations", "overhead")


def give_config(database: Database, folder: Path) -> None:
    """Let the registered model be one that can be planned."""
    (folder / "config.json").write_bytes(CONFIG.read_bytes())
    with database.write() as session:
        model = session.get_one(BaseModel, 1)
        model.path = str(folder)
        session.add(model)


def read_gpu(database: Database, feed: Feed) -> None:
    """A minute of readings of the card that the job runs on."""
    with database.write() as session:
        for second in range(60):
            grown = {**DEVICE, "process_vram_bytes": int(min(6, 2 + second / 5) * 2**30)}
            data = {"available": True, "devices": [grown], "host": HOST}
            session.add(MemoryReading(job_id=feed.job_id, time=time.time() + second, data=data))


def test_bands_of_the_plan_lie_behind_the_readings(
    page: Page, database: Database, running: Feed, tmp_path: Path
) -> None:
    give_config(database, tmp_path)
    read_gpu(database, running)
    page.goto(f"/jobs/{running.job_id}")
    chart = page.locator("[data-chart=memory]")

    for part in PARTS:
        expect(chart.locator(".legend li", has_text=f"planned {part}")).to_be_visible()
    colours = chart.locator("canvas").evaluate(
        """(canvas) => {
            const x = canvas.width / 2, seen = new Set();
            for (let y = 0; y < canvas.height; y += 1)
                seen.add([...canvas.getContext("2d").getImageData(x, y, 1, 1).data].join());
            return seen.size;
        }"""
    )
    assert colours > len(PARTS)  # a band each, and what is drawn over them


def test_without_a_plan_there_are_no_bands(page: Page, database: Database, running: Feed) -> None:
    read_gpu(database, running)
    page.goto(f"/jobs/{running.job_id}")

    expect(page.locator("[data-chart=memory] .legend li").first).to_be_visible()
    expect(page.locator("[data-chart=memory] .legend li", has_text="planned")).to_have_count(0)
