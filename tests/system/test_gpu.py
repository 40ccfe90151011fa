"""How the GPU was while jobs ran."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.metrics.models import MemoryReading
from app.core.metrics.readings import read_box_columns


def _device(watts: float) -> dict[str, Any]:
    return {
        "index": 0,
        "vram_used_bytes": 1,
        "utilization_percent": 50,
        "temperature_celsius": 60,
        "power_watts": watts,
    }


def _read(database: Database, count: int, ago: float, seconds: int = 1) -> None:
    now = time.time()
    with database.write() as session:
        for number in range(count):
            data = {"available": True, "devices": [_device(100.0 + number)], "host": {"ram_used_bytes": 5}}
            session.add(MemoryReading(job_id=7, time=now - ago + number, seconds=seconds, data=data))


def _charts(page: str) -> dict[str, dict[str, Any]]:
    """{kind: readings} of the charts that the page brings."""
    found = re.findall(r'data-chart="(\w+)".*?data-options>(.*?)</script>', page, re.DOTALL)
    return {kind: json.loads(options)["readings"] for kind, options in found}


def test_shows_temperature_power_and_load_of_the_chosen_span(client: TestClient, database: Database) -> None:
    assert "no readings were kept" in client.get("/gpu").text
    _read(database, 5, ago=7200.0, seconds=10)
    assert "no readings were kept" in client.get("/gpu").text
    charts = _charts(client.get("/gpu?hours=24").text)
    assert set(charts) == {"memory", "gpu", "power"}
    assert charts["power"]["power_watts"] == [100.0, 101.0, 102.0, 103.0, 104.0]
    assert charts["gpu"]["temperature_celsius"] == [60] * 5
    assert client.get("/gpu?hours=7").status_code == 200


def test_a_long_time_is_told_by_its_peaks(database: Database) -> None:
    _read(database, 1000, ago=2000.0)
    with database.read() as session:
        columns = read_box_columns(session, 0, 0.0, 100)
    assert len(columns["time"]) <= 100
    assert max(columns["power_watts"]) == 1099.0
