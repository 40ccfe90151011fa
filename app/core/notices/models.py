"""Tables of notifications: where they go, and each notice with what became of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlmodel import Field

from app.core.table import Numbered, Table, enum_field, json_field


class Shape(StrEnum):
    """What the receiver understands."""

    JSON = "json"  # every field of the notice, for one's own programs
    NTFY = "ntfy"
    DISCORD = "discord"
    SLACK = "slack"


class NoticeKind(StrEnum):
    """What a notice is about."""

    FINISHED = "finished"  # a training, a merge or an export is completed
    FAILED = "failed"  # also NaN and out of memory: the message says so
    GUARD = "guard"  # a step hangs, or the eval loss rises
    DISK_FULL = "disk_full"  # a job waits for room


class NoticeStatus(StrEnum):
    """Where a notice stands. It is sent once at most: what may have arrived is never sent again."""

    WAITING = "waiting"  # also after a try that cannot have arrived
    SENDING = "sending"
    SENT = "sent"
    GIVEN_UP = "given_up"


class Webhook(Table, table=True):
    """The one receiver. Its address is a secret, and is no column."""

    __tablename__ = "webhook"

    id: int = Field(default=1, primary_key=True)
    shape: Shape = enum_field(Shape, "shape", default=Shape.JSON)
    kinds: list[str] = json_field(nullable=False, default_factory=list)
    link_base: str = ""  # before /jobs/7 in a message; where the dashboard is seen from outside
    cursor: int = 0  # of the event log: notices are made of events behind it


class Notice(Numbered, table=True):
    """One message. `about` is there once: whatever is read twice makes no second one."""

    __tablename__ = "notice"
    __table_args__ = ({"sqlite_autoincrement": True},)

    about: str = Field(unique=True)
    kind: NoticeKind = enum_field(NoticeKind, "kind")
    job_id: int | None = Field(default=None, foreign_key="job.id", index=True)
    title: str
    text: str
    data: dict[str, Any] = json_field(nullable=False, default_factory=dict)  # {status, eval_loss, seconds, …}
    status: NoticeStatus = enum_field(NoticeStatus, "status", default=NoticeStatus.WAITING)
    tries: int = 0
    next_try_at: float = 0.0
    error: str | None = None  # of the last try
    created_at: float
    sent_at: float | None = None
