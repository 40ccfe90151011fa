"""The columns that static/charts draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import delete
from sqlmodel import Session

from app.core.database import Database
from app.core.jobs.models import Job
from app.core.metrics.models import MemoryReading
from app.core.metrics.store import put_metrics
from app.web.charts import SeriesQuery, memory_chart, memory_row, read_chart

HOST = {"ram_used_bytes": 4, "child_rss_bytes": 1, "ram_total_bytes": 16, "cpu_percent": 9.0}


def _device(index: int, used: int | None, mine: int | None) -> dict[str, Any]:
    return {"index": index, "vram_used_bytes": used, "process_vram_bytes": mine, "vram_total_bytes": 12}


def _read(session: Session, job: Job, **query: Any) -> dict[str, Any]:
    return read_chart(session, job, SeriesQuery(**{"names": "loss,eval_loss", **query}))


def test_series_have_a_column_for_each_figure_and_a_step_run_again_counts_once(
    database: Database, make_job: Callable[..., Job]
) -> None:
    job = make_job()
    with database.write() as session:
        for step, loss in ((1, 2.0), (2, 1.5), (2, 1.25)):
            put_metrics(session, job.key, step, 7.0, {"loss": loss, "grad_norm": 1.0})
        put_metrics(session, job.key, 2, 7.0, {"eval_loss": None})
    with database.read() as session:
        chart = _read(session, job)
    assert (chart["job"], chart["x"], list(chart["series"])) == (job.key, "step", ["loss", "eval_loss"])
    assert chart["series"]["loss"] == {
        "x": [1, 2],
        "step": [1, 2],
        "time": [7.0, 7.0],
        **{name: [2.0, 1.25] for name in ("mean", "min", "max", "last")},
        "points": [1, 1],
        "missing": [0, 0],
    }
    assert (chart["series"]["eval_loss"]["mean"], chart["series"]["eval_loss"]["missing"]) == ([None], [1])


@pytest.mark.parametrize(
    ("query", "x"),
    [
        ({"x": "step", "from": 3, "to": 5}, [3, 4, 5]),
        ({"x": "time", "from": 103, "to": 104.5}, [103.0, 104.0, 105.0]),
        ({"x": "tokens", "from": 300, "to": 400}, [300.0, 400.0]),
        ({"x": "step", "from": 50}, None),
        ({"x": "step", "to": -5}, None),
        ({"x": "step", "from": 5, "to": 3}, None),
    ],
)
def test_a_part_is_read_along_its_axis(
    database: Database, make_job: Callable[..., Job], query: dict[str, Any], x: list[float] | None
) -> None:
    job = make_job()
    with database.write() as session:
        for step in range(1, 10):
            put_metrics(session, job.key, step, 100.0 + step, {"loss": 1.0, "tokens": 100.0 * step})
    with database.read() as session:
        series = _read(session, job, **query)["series"]
    assert (series["loss"]["x"] if series else None) == x


def test_memory_is_of_the_device_that_the_process_is_on(database: Database, make_job: Callable[..., Job]) -> None:
    devices = [_device(0, 3, None), _device(1, 9, 8)]
    row = memory_row({"time": 1.0, "devices": devices, "host": HOST})
    assert (row["vram_used_bytes"], row["process_vram_bytes"]) == (9, 8)
    chart = _stored(database, make_job(), [devices, [_device(0, 3, None), _device(1, 2, None)]])
    assert (chart["vram_used_bytes"], chart["process_vram_bytes"]) == ([9, 2], [8, None])


def test_memory_of_the_first_device_where_no_process_is_seen(database: Database, make_job: Callable[..., Job]) -> None:
    devices = [_device(0, 3, None), _device(1, 9, None)]
    row = memory_row({"time": 1.0, "devices": devices, "host": HOST})
    assert (row["vram_used_bytes"], row["process_vram_bytes"], row["child_rss_bytes"]) == (3, None, 1)
    assert _stored(database, make_job(), [devices])["vram_used_bytes"] == [3]


def test_memory_without_a_gpu_keeps_vram_unknown(database: Database, make_job: Callable[..., Job]) -> None:
    chart = _stored(database, make_job(), [[], []])
    assert chart["time"] == [0.0, 1.0]
    assert chart["vram_used_bytes"] == [None, None]
    assert chart["ram_used_bytes"] == [4, 4]


def test_a_peak_of_a_second_is_in_the_thinned_readings(database: Database, make_job: Callable[..., Job]) -> None:
    job = make_job()
    for peak in range(95):
        used = [5] * peak + [9] + [5] * (94 - peak)
        chart = _stored(database, job, [[_device(0, each, None)] for each in used], most=10)
        assert (max(chart["vram_used_bytes"]), len(chart["time"])) == (9, 10)
        assert chart["time"][-1] == 94.0


def _stored(database: Database, job: Job, readings: Sequence[list[dict[str, Any]]], most: int = 100) -> dict[str, Any]:
    with database.write() as session:
        session.exec(delete(MemoryReading))
        for number, devices in enumerate(readings):
            data = {"available": bool(devices), "devices": devices, "host": HOST}
            session.add(MemoryReading(job_id=job.id, time=float(number), data=data))
        session.add(MemoryReading(job_id=None, time=0.5, data={"available": False, "devices": [], "host": None}))
    with database.read() as session:
        return memory_chart(session, job.key, None, None, most)
