"""The columns that static/charts.js draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.core.database import Database
from app.core.jobs.models import Job
from app.core.metrics.models import MemoryReading
from app.core.metrics.store import put_metrics
from app.web.charts import loss_chart, memory_chart, memory_row

HOST = {"ram_used_bytes": 4, "child_rss_bytes": 1, "ram_total_bytes": 16, "cpu_percent": 9.0}


def _device(index: int, used: int | None, mine: int | None) -> dict[str, Any]:
    return {"index": index, "vram_used_bytes": used, "process_vram_bytes": mine, "vram_total_bytes": 12}


def test_loss_has_a_column_for_each_series_and_a_step_run_again_counts_once(
    database: Database, make_job: Callable[..., Job]
) -> None:
    job = make_job()
    with database.write() as session:
        for step, loss in ((1, 2.0), (2, 1.5), (2, 1.25)):
            put_metrics(session, job.key, step, 0.0, {"loss": loss, "grad_norm": 1.0})
        put_metrics(session, job.key, 2, 0.0, {"eval_loss": None})
    with database.read() as session:
        chart = loss_chart(session, job.key)
    assert chart == {"loss": {"step": [1, 2], "value": [2.0, 1.25]}, "eval_loss": {"step": [2], "value": [None]}}


def test_memory_is_of_the_device_that_the_process_is_on() -> None:
    devices = [_device(0, 3, None), _device(1, 9, 8)]
    row = memory_row({"time": 1.0, "devices": devices, "host": HOST})
    assert (row["vram_used_bytes"], row["process_vram_bytes"]) == (9, 8)


def test_memory_of_the_first_device_where_no_process_is_seen() -> None:
    row = memory_row({"time": 1.0, "devices": [_device(0, 3, None), _device(1, 9, None)], "host": HOST})
    assert (row["vram_used_bytes"], row["process_vram_bytes"], row["child_rss_bytes"]) == (3, None, 1)


def test_memory_without_a_gpu_keeps_vram_unknown(database: Database, make_job: Callable[..., Job]) -> None:
    job = make_job()
    with database.write() as session:
        for time in (1.0, 2.0):
            data = {"available": False, "devices": [], "host": HOST}
            session.add(MemoryReading(job_id=job.id, time=time, data=data))
    with database.read() as session:
        chart = memory_chart(session, job.key)
    assert chart["time"] == [1.0, 2.0]
    assert chart["vram_used_bytes"] == [None, None]
    assert chart["ram_used_bytes"] == [4, 4]
