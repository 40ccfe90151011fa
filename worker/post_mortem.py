"""What is known of a job that ran out of memory, put together once its process has ended; the job's page shows it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Mapping
from typing import Any

from sqlmodel import Session, col, select

from app.core.errors import HostOutOfMemory
from app.core.events.models import Event
from app.core.events.types import EventKind
from app.core.jobs.models import Attempt, Job
from app.core.paths import DataFolder
from worker.in_hand import read_in_hand
from worker.limits import TookTooLong
from worker.shortage import OOM_ADVICE, Shortage

_LAST_READINGS = 10
_AGAIN = "The last log lines are below. Submit the job again to try once more."


def explain_death(code: int | None, damage: str | None, killed_for_memory: bool | None) -> dict[str, Any]:
    """The error of a process that ended without a word. `killed_for_memory` is None where nobody can tell."""
    if damage is None and code == -signal.SIGKILL and killed_for_memory is not False:
        return _killed(certain=killed_for_memory is True)
    kind = TookTooLong.code if code == -signal.SIGPROF else "child_died"
    return {"kind": kind, "message": damage or _death(code), "advice": _AGAIN}


def _killed(*, certain: bool) -> dict[str, Any]:
    autopsy = {"memory": Shortage.HOST.value, "reason": None}
    if not certain:
        message = "Its process was killed (signal 9): most often the host ran out of memory."
        return {"kind": "child_died", "message": message, "advice": _AGAIN, "autopsy": autopsy}
    message = "The host ran out of memory: the kernel killed the job's process (signal 9)."
    return {"kind": HostOutOfMemory.code, "message": message, "advice": OOM_ADVICE, "autopsy": autopsy}


def _death(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "Its process was killed (signal 9), though the kernel counts none that it killed for want of memory."
    if code == -signal.SIGPROF:
        return "Its process was ended: a single step took longer than it may."
    if code is None:
        return "Its process ended without saying why; its exit code is not known, since another worker had started it."
    if code < 0:
        return f"Its process was ended by {signal.Signals(-code).name}."
    return f"Its process ended with code {code} without saying why."


def complete_autopsy(
    session: Session, folder: DataFolder, job: Job, attempt: Attempt, found: Mapping[str, Any]
) -> dict[str, Any]:
    """What the child found, with what only the worker knows: {memory, reason, allocator, batch, phase, step, time,
    device, host}.

    `device` is as the last reading that holds the job's process has it, its processes among it.
    """
    batch = found.get("batch") or read_in_hand(folder.attempt(job.key, attempt.number))
    reading = _last_reading(session, job)
    return {
        "allocator": None,
        **found,
        "batch": batch,
        "phase": job.phase,
        "step": batch["step"] if batch else job.step,
        "time": attempt.ended_at or time.time(),
        "device": _device(reading.get("devices", ())),
        "host": reading.get("host"),
    }


def _last_reading(session: Session, job: Job) -> dict[str, Any]:
    """The last one with the job's process on a device; without any, the last one at all."""
    of_job = select(Event).where(Event.job_id == job.id, Event.kind == EventKind.GPU.value)
    events = session.exec(of_job.order_by(col(Event.id).desc()).limit(_LAST_READINGS)).all()
    readings = [event.data for event in events]
    return next((each for each in readings if _mine(each["devices"])), readings[0] if readings else {})


def _device(devices: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The device that the job's process is on, else the first."""
    chosen = next(iter([*_mine(devices), *devices]), None)
    names = ("index", "name", "vram_total_bytes", "vram_used_bytes", "process_vram_bytes", "processes")
    return None if chosen is None else {name: chosen.get(name) for name in names}


def _mine(devices: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [device for device in devices if device.get("process_vram_bytes") is not None]
