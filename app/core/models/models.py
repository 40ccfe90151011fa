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
    needs_code: bool = False  # Python code that comes with it: loaded only where an admin has allowed it
    error: str | None = None
    created_at: float


class CodeConsent(Numbered, table=True):
    """An admin has allowed just this code of a model to be run; it stands until somebody withdraws it."""

    __tablename__ = "code_consent"
    __table_args__ = ({"sqlite_autoincrement": True},)

    base_model_id: int = Field(foreign_key="base_model.id", index=True)
    sha256: str  # of all files and the revision
    files: dict[str, str] = json_field(nullable=False, default_factory=dict)  # SHA-256 by path
    revision: str | None = None  # the hub's commit
    given_by: str
    given_at: float
    withdrawn_by: str | None = None
    withdrawn_at: float | None = None
