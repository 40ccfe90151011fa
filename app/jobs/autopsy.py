"""A job that ran out of memory: what its page says of it, and the buttons that queue it again with a change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.jobs import queue
from app.core.jobs.autopsy import SHOWN_SECONDS, apply_change, find_autopsy
from app.core.jobs.changes import Change
from app.core.jobs.models import Job
from app.jobs.outcome import Fact
from app.web.charts import memory_columns
from app.web.dependencies import FolderDep, SettingsDep, WriteSessionDep
from app.web.templating import format_bytes, format_number, redirect

router = APIRouter(include_in_schema=False)

_HELD = {"weights": "weights", "gradients": "gradients", "optimizer": "optimizer state", "other": "other tensors"}


@dataclass(frozen=True, slots=True)
class ShownAutopsy:
    """What the section shows. `chart` is None where no reading was taken."""

    of_host: bool  # not of the device
    reason: str | None
    facts: Sequence[Fact]
    changes: Sequence[Change]
    processes: Sequence[Mapping[str, Any]]
    device: str | None
    chart: dict[str, Any] | None
    predicted_bytes: int | None
    capacity_bytes: int | None
    seconds: int = round(SHOWN_SECONDS)

    @property
    def plan_was_too_low(self) -> bool:
        """Whether the plan had the job fit."""
        predicted, capacity = self.predicted_bytes, self.capacity_bytes
        return predicted is not None and capacity is not None and predicted <= capacity


@router.post("/jobs/{job_id}/changes")
def change_job(
    request: Request,
    job_id: int,
    session: WriteSessionDep,
    settings: SettingsDep,
    folder: FolderDep,
    change: Annotated[str, Form()],
) -> Response:
    """Queue a job that ran out of memory again, with one of its changes."""
    job = apply_change(session, queue.get_job(session, job_id), change, settings.local_roots, folder)
    return redirect(request, request.app.url_path_for("show_job", job_id=job.key))


def show_autopsy(session: Session, job: Job) -> ShownAutopsy | None:
    """None for a job that did not run out of memory."""
    autopsy = find_autopsy(session, job)
    if autopsy is None:
        return None
    facts, device = autopsy.facts, autopsy.facts["device"] or {}
    return ShownAutopsy(
        of_host=facts["memory"] == "host",
        reason=facts["reason"],
        facts=[
            *_place(facts, job),
            *_planned(autopsy.predicted_bytes, autopsy.capacity_bytes),
            *_batch(facts["batch"], job, training=facts["phase"] == "train"),
            *_allocator(facts["allocator"]),
        ],
        changes=autopsy.changes,
        processes=device.get("processes") or [],
        device=device.get("name"),
        chart=memory_columns(autopsy.readings) if autopsy.readings else None,
        predicted_bytes=autopsy.predicted_bytes,
        capacity_bytes=autopsy.capacity_bytes,
    )


def _place(facts: Mapping[str, Any], job: Job) -> Iterator[Fact]:
    if facts["phase"]:
        yield Fact("phase", facts["phase"])
    if facts["phase"] in ("train", "eval") or facts["step"]:
        yield Fact("step", format_number(facts["step"]), f"of {job.max_steps:,}" if job.max_steps else "")


def _planned(predicted: int | None, capacity: int | None) -> Iterator[Fact]:
    if predicted is not None:
        yield Fact("predicted peak", format_bytes(predicted), "by the plan, for this spec")
    if capacity is not None:
        yield Fact("available", format_bytes(capacity), "held by the job, and free")


def _batch(batch: Mapping[str, Any] | None, job: Job, *, training: bool) -> Iterator[Fact]:
    if batch is None:
        return
    plural = "" if batch["sequences"] == 1 else "s"
    size = f"{batch['sequences']:,} sequence{plural}, {batch['tokens']:,} tokens"
    padding = batch["places"] - batch["tokens"]
    steps = job.spec.get("gradient_accumulation_steps", 1)
    which = f"{batch['micro_batch']:,} of {steps:,} of its step" if training and steps > 1 else ""
    yield Fact("batch", size, ", ".join(filter(None, (which, f"{padding:,} places of padding" if padding else ""))))
    rows = ", ".join(
        f"row\u00a0{number:,}\u00a0({length:,})" for number, length in batch["longest"] if number is not None
    )
    if rows:
        more = ", …" if batch["sequences"] > len(batch["longest"]) else ""
        yield Fact("its longest rows", rows + more, "by tokens")


def _allocator(allocator: Mapping[str, Any] | None) -> Iterator[Fact]:
    if allocator is None:
        return
    labels = (
        ("peak_allocated_bytes", "peak allocated", "by PyTorch's allocator, the failed request not counted"),
        ("allocated_bytes", "still allocated", "when it was looked at"),
        ("reserved_bytes", "reserved", "by PyTorch's allocator"),
        ("inactive_split_bytes", "fragments", "reserved, and too small to use"),
        ("peak_rss_bytes", "peak resident memory", "of the job's process"),
        ("free_bytes", "free", f"of {format_bytes(allocator['total_bytes'])}"),
    )
    for name, label, note in labels:
        if allocator.get(name) is not None:
            yield Fact(label, format_bytes(allocator[name]), note)
    held = [f"{label} {format_bytes(allocator['held'][name])}" for name, label in _HELD.items()]
    yield Fact("tensors held", ", ".join(held), "as far as Python knows them")
