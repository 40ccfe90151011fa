"""The event log: what happened, in the order in which it was committed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, text
from sqlmodel import Field

from app.core.table import Numbered, json_field


class Event(Numbered, table=True):
    """One thing that happened. Ids only grow and are never used twice, so a reader can resume behind any of them."""

    __tablename__ = "event"
    __table_args__ = (
        Index("ix_event_job_id_id", "job_id", "id"),  # a job's stream
        Index("ix_event_job_id_kind_id", "job_id", "kind", "id"),  # a job's log tail, its samples
        Index("ix_event_gpu_time", "time", sqlite_where=text("kind = 'gpu'")),  # readings that are due to be pruned
        {"sqlite_autoincrement": True},
    )

    job_id: int | None = Field(default=None)
    kind: str
    step: int | None = None
    time: float
    data: dict[str, Any] = json_field(nullable=False, default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The event as the stream carries it."""
        return {name: getattr(self, name) for name in ("id", "job_id", "kind", "step", "time", "data")}
