"""Table of registered datasets."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlmodel import Field

from app.core.datasets.kinds import RowKind
from app.core.table import Numbered, enum_field, json_field


class DatasetStatus(StrEnum):
    """Whether jobs can start on the dataset."""

    IMPORTING = "importing"  # a job downloads it
    READY = "ready"
    FAILED = "failed"


class Dataset(Numbered, table=True):
    """A data file under `datasets/<id>`: `source.*` as it came, `rows.jsonl` as training reads it."""

    __tablename__ = "dataset"
    __table_args__ = ({"sqlite_autoincrement": True},)

    name: str = Field(unique=True)
    status: DatasetStatus = enum_field(DatasetStatus, "status", default=DatasetStatus.READY)
    # {kind: file, filename} or {kind: hub, hub_id, revision, …}, with `notices` of what was left out of rows
    source: dict[str, Any] = json_field(nullable=False, default_factory=dict)
    columns: dict[str, str] = json_field(nullable=False, default_factory=dict)  # mapped by hand: field -> column
    format: str  # a name in FORMATS
    kind: RowKind = enum_field(RowKind, "kind", default=RowKind.MESSAGES)
    rows: int
    bytes: int
    sha256: str = Field(index=True)  # of the file as it came
    rows_sha256: str  # of rows.jsonl: a run checks that it trains on what was queued
    error: str | None = None
    created_at: float
