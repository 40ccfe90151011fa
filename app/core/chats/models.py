"""Tables of the playground: the turns of chats, and the prompts that were kept as samples."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import Index
from sqlmodel import Field

from app.core.table import Numbered, json_field


class Side(StrEnum):
    """Whom a question is put to."""

    BASE = "base"  # the model as it was before training
    TUNED = "tuned"


class ChatTurn(Numbered, table=True):
    """One question of a chat and its answers. The chat is a job of the kind `playground`.

    An answer is {text, tokens, stop_reason, seconds} or, where there can be none, {error: {kind, message, advice,
    field?}}. A turn is open until each of its sides has answered.
    """

    __tablename__ = "chat_turn"
    __table_args__ = (Index("ix_chat_turn_job_id_id", "job_id", "id"), {"sqlite_autoincrement": True})

    job_id: int = Field(foreign_key="job.id")
    prompt: str
    system: str = ""
    sides: list[str] = json_field(nullable=False, default_factory=list)  # in the order in which they answer
    sampling: dict[str, Any] = json_field(nullable=False, default_factory=dict)  # see app.core.jobs.sampling
    answers: dict[str, Any] = json_field(nullable=False, default_factory=dict)  # by side
    stop_requested: bool = False  # the answer in hand ends where it is
    asked_at: float
    ended_at: float | None = None


class SamplePrompt(Numbered, table=True):
    """A prompt that was kept, for trainings to answer at their checkpoints."""

    __tablename__ = "sample_prompt"
    __table_args__ = ({"sqlite_autoincrement": True},)

    text: str = Field(unique=True)
    created_at: float
