"""What the driver says is on the command's output and on the page, within seconds, with no job running."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import Dashboard, open_page, run_dashboard
from tests.nvml.stand_in import GIB, GPU_IS_LOST, ScriptedDevice, ScriptedNvml

pytest_plugins = ("tests.nvml.fixtures",)
pytestmark = pytest.mark.browser


def reading_when(dashboard: Dashboard, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """`loradeck gpu --json`, once the condition holds."""
    deadline = time.monotonic() + 15
    while not condition(reading := dashboard.command("gpu")):
        assert time.monotonic() < deadline, reading
        time.sleep(0.2)
    return reading


def test_readings_reach_command_and_page(nvml: ScriptedNvml, tmp_path: Path) -> None:
    nvml.script(ScriptedDevice(name="Box GPU", total=24 * GIB, used=5 * GIB))
    environment = nvml.environment() | {"LORADECK_SPARE_CHILD": "false"}
    with run_dashboard(tmp_path / "home", tmp_path / "cache", **environment) as dashboard:
        first = reading_when(dashboard, lambda reading: reading["available"])
        (device,) = first["devices"]
        assert (device["name"], device["vram_total_bytes"], device["vram_used_bytes"]) == ("Box GPU", 24 * GIB, 5 * GIB)
        assert (device["utilization_percent"], device["temperature_celsius"], device["power_watts"]) == (37, 61, 210.5)
        assert first["host"]["ram_total_bytes"] > 0
        with open_page(dashboard) as page:
            page.goto("/gpu")
            expect(page.locator("#gpu-readings")).to_contain_text("5.0 GiB")
            nvml.script(ScriptedDevice(name="Box GPU", used=7 * GIB, power=None))
            expect(page.locator("#gpu-readings")).to_contain_text("7.0 GiB", timeout=10_000)
        unsupported = reading_when(dashboard, lambda reading: reading["devices"][0]["power_watts"] is None)
        assert unsupported["devices"][0]["vram_used_bytes"] == 7 * GIB
        nvml.script(ScriptedDevice(everything=GPU_IS_LOST))
        lost = reading_when(dashboard, lambda reading: not reading["available"])
        assert "lost" in lost["reason"]
        assert all(device["vram_used_bytes"] is None for device in lost["devices"])
