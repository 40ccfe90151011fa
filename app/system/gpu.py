"""The GPU page: the newest reading of every device and of the host, and how they were while jobs ran."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.events.log import latest_id
from app.core.jobs.capabilities import describe_capabilities
from app.core.jobs.queries import latest_reading, worker_view
from app.core.metrics.readings import read_box_columns
from app.web.dependencies import SessionDep
from app.web.templating import render_region

router = APIRouter(include_in_schema=False)

SPANS = {1: "hour", 24: "day", 168: "week"}  # hours
_POINTS = 600


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart of readings that the page brings itself. `kind` is that of static/charts/kinds.js."""

    id: str
    kind: str
    title: str
    readings: dict[str, list[Any]]


@router.get("/gpu")
def show_gpu(request: Request, session: SessionDep, hours: int = 1) -> Response:
    """What every device does now, and did in the last hours."""
    hours = hours if hours in SPANS else 1
    context = {**read_machine(session), "after": latest_id(session), "hours": hours, "spans": SPANS}
    history = {} if request.headers.get("hx-request") else {"history": _history(session, context["reading"], hours)}
    return render_region(request, "system/_gpu.html", "system/gpu.html", {**context, **history})


def read_machine(session: Session) -> dict[str, Any]:
    """The newest reading, the worker, and what it can train."""
    worker = worker_view(session)
    can = describe_capabilities(worker["capabilities"])
    return {"reading": latest_reading(session), "worker": worker, "capabilities": can}


def _history(session: Session, reading: dict[str, Any] | None, hours: int) -> list[Figure]:
    """Of each device; of a box without one, the host's memory. Nothing where nothing was read."""
    devices = (reading or {}).get("devices") or []
    figures: list[Figure] = []
    for place in range(max(1, len(devices))):
        columns = read_box_columns(session, place, time.time() - 3600 * hours, _POINTS)
        index = devices[place]["index"] if devices else place
        of = f"GPU {index}: " if any(columns["vram_used_bytes"]) else ""
        figures += [Figure(f"history-{place}-memory", "memory", f"{of}memory" if of else "Memory", columns)]
        if any(value is not None for value in columns["utilization_percent"]):
            figures.append(Figure(f"history-{place}-gpu", "gpu", f"{of}load and temperature", columns))
        if any(value is not None for value in columns["power_watts"]):
            figures.append(Figure(f"history-{place}-power", "power", f"{of}power", columns))
    return [figure for figure in figures if figure.readings["time"]]
