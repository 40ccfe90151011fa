"""What is kept for how long, and what that has saved so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import func
from sqlmodel import Session, col, select

from app.core.disk import Disk
from app.core.events.log import latest_id
from app.core.events.models import Event
from app.core.metrics.models import MemoryReading
from app.core.settings import Settings
from app.web.templating import format_bytes, format_number


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule in words, the setting that changes it, and what it has come to."""

    what: str
    setting: str
    effect: str


def describe_retention(session: Session, settings: Settings, disk: Disk) -> list[Rule]:
    """Rules for readings, events and checkpoints."""
    return [*_readings(session, settings), *_events(session, settings), _checkpoints(disk)]


def _readings(session: Session, settings: Settings) -> Iterator[Rule]:
    by_age = select(MemoryReading.seconds, func.count()).group_by(col(MemoryReading.seconds))
    rows = {int(seconds): int(count) for seconds, count in session.exec(by_age)}
    for seconds, age, setting in (
        (10, _span(settings.keep_readings_hours, "hour"), "KEEP_READINGS_HOURS"),
        (60, _span(settings.keep_readings_days, "day"), "KEEP_READINGS_DAYS"),
    ):
        count = rows.get(seconds, 0)
        saved = f"{format_number(count)} rows stand for up to {format_number(count * seconds)} readings"
        what = f"Memory readings older than {age} are rolled up into one for {seconds} seconds; no peak is lost."
        yield Rule(what, f"LORADECK_{setting}", saved)


def _events(session: Session, settings: Settings) -> Iterator[Rule]:
    given, there = latest_id(session), session.exec(select(func.count()).select_from(Event)).one()
    dropped = f"{format_number(given - there)} of {format_number(given)} events are gone"
    yield Rule(
        f"GPU readings leave the event log after {settings.keep_gpu_events_minutes:g} minutes.",
        "LORADECK_KEEP_GPU_EVENTS_MINUTES",
        dropped,
    )
    yield Rule(
        f"Progress, metrics and older log lines leave the event log {settings.keep_events_days:g} days after their "
        "job's end; the metrics table and the log file keep them.",
        "LORADECK_KEEP_EVENTS_DAYS",
        "counted above",
    )


def _checkpoints(disk: Disk) -> Rule:
    saved = f"what is kept takes {format_bytes(disk.saved_bytes)}; {format_bytes(disk.free_bytes)} are free"
    what = "Of a training's checkpoints the newest save_total_limit are kept, the best one and those marked to be kept."
    return Rule(what, "save_total_limit of each job", saved)


def _span(number: float, unit: str) -> str:
    return f"{number:g} {unit}{'' if number == 1 else 's'}"
