"""Fifty metric events a second for two minutes on an open job page: long tasks, and what the heap comes to."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs.queue import get_job
from app.core.metrics.store import put_metrics
from app.core.settings import Settings
from bench.ui.browser import heap_bytes, open_page

RATE = 50
_AT_ONCE = 5  # as the worker takes records in: several in a transaction


def measure_live(url: str, home: Path, long_job: int, seconds: int) -> dict[str, Any]:
    """The writer is a thread of this process, the server another one."""
    stop = threading.Event()
    written: list[int] = []
    writer = threading.Thread(target=_write, args=(home, long_job, stop, written))
    with open_page() as (page, session, traffic):
        page.goto(f"{url}/jobs/{long_job}")
        loss = page.locator("[data-chart=loss]")
        page.locator("[data-chart=loss][data-range]:not(.no-points)").wait_for()
        page.wait_for_timeout(3000)
        page.evaluate("measured.long.length = 0")
        before, heap = int(loss.get_attribute("data-points") or 0), []
        writer.start()
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            page.wait_for_timeout(10_000)
            heap.append(heap_bytes(session))
        stop.set()
        writer.join()
        page.wait_for_timeout(2000)
        long = [duration for _, duration in page.evaluate("measured.long")]
        arrived = int(loss.get_attribute("data-points") or 0) - before
        streams = traffic.streams
    return {
        "events": sum(written),
        "events_per_second": round(sum(written) / seconds, 1),
        "points_drawn": arrived,
        "longest_task_ms": max(long, default=0),
        "tasks_over_50_ms": len(long),
        "tasks_over_100_ms": sum(duration > 100 for duration in long),
        "heap_mb_first": round(heap[0] / 1e6, 2),
        "heap_mb_half": round(heap[len(heap) // 2] / 1e6, 2),
        "heap_mb_last": round(heap[-1] / 1e6, 2),
        "streams": streams,
    }


def _write(home: Path, job_id: int, stop: threading.Event, written: list[int]) -> None:
    database = Database(Settings(home=home).effective_database_url)
    with database.read() as session:
        step = get_job(session, job_id).step
    due = time.monotonic()
    while not stop.is_set():
        with database.write() as session:
            for _ in range(_AT_ONCE):
                step += 1
                values = {
                    "loss": 1 + step % 7 / 10,
                    "learning_rate": 1e-4,
                    "grad_norm": 1 + step % 5,
                    "tokens": step * 2048.0,
                }
                values["tokens_per_second"] = 3200.0 + step % 9
                put_metrics(session, job_id, step, time.time(), values)
                log.append(session, EventKind.METRIC, values, job_id=job_id, step=step)
            job = get_job(session, job_id)
            job.step = step
            session.add(job)
        written.append(_AT_ONCE)
        due += _AT_ONCE / RATE
        stop.wait(max(0.0, due - time.monotonic()))
