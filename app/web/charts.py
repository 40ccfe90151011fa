"""The data that static/charts.js draws: columns, so that a page carries each name once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlmodel import Session

from app.core.metrics.store import read_memory, read_series

LOSS_SERIES = ("loss", "eval_loss")
REWARD_SERIES = ("rewards_margin", "rewards_chosen", "rewards_rejected", "eval_rewards_margin")
ACCURACY_SERIES = ("rewards_accuracy", "eval_rewards_accuracy")


def loss_chart(session: Session, job_id: int) -> dict[str, Any]:
    """{loss: {step: [...], value: [...]}, eval_loss: …}."""
    return metric_chart(session, job_id, LOSS_SERIES)


def metric_chart(session: Session, job_id: int, names: Sequence[str]) -> dict[str, Any]:
    """{name: {step: [...], value: [...]}, …}, empty where the job reported no such metric."""
    chart: dict[str, Any] = {}
    for name in names:
        points = read_series(session, job_id, name).get(name, [])
        chart[name] = {"step": [step for step, _ in points], "value": [value for _, value in points]}
    return chart


def memory_chart(session: Session, job_id: int) -> dict[str, Any]:
    """All readings of a job, thinned, as `memory_columns`."""
    return memory_columns(read_memory(session, job_id))


def memory_columns(readings: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One column for each name of `memory_row`."""
    rows = [memory_row(reading) for reading in readings]
    return {name: [row[name] for row in rows] for name in memory_row({"time": 0, "devices": [], "host": {}})}


def memory_row(reading: dict[str, Any]) -> dict[str, float | None]:
    """One reading as the chart shows it: of several devices, the one that the job's process is on."""
    devices, host = reading["devices"], reading["host"] or {}
    mine = [device for device in devices if device.get("process_vram_bytes") is not None]
    device: dict[str, Any] = next(iter([*mine, *devices]), {})
    of_device = ("vram_used_bytes", "process_vram_bytes", "vram_total_bytes")
    of_host = ("ram_used_bytes", "child_rss_bytes", "ram_total_bytes")
    return {
        "time": reading["time"],
        **{name: device.get(name) for name in of_device},
        **{name: host.get(name) for name in of_host},
    }
