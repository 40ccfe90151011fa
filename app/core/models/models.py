"""Table of base models."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlmodel import Field

from app.core.table import Numbered, enum_field, json_field


class ModelStatus(StrEnum):
    """Whether jobs can start on the model."""

    IMPORTING = "importing"
    READY = "ready"
    FAILED = "failed"


class BaseModel(Numbered, table=True):
    """A model to fine-tune: a folder of safetensors with its tokenizer."""

    __tablename__ = "base_model"
    __table_args__ = ({"sqlite_autoincrement": True},)

    name: str = Field(unique=True)
    status: ModelStatus = enum_field(ModelStatus, "status", default=ModelStatus.IMPORTING)
    source: dict[str, Any] = json_field(nullable=False, default_factory=dict)  # {kind, path | hub_id, revision}
    path: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    bytes: int | None = None
    max_length: int | None = None  # positions the model was made for, in tokens
    linear_modules: list[str] = json_field(nullable=False, default_factory=list)
    has_chat_template: bool = False
    error: str | None = None
    created_at: float
