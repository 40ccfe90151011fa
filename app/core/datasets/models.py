"""Table of registered datasets."""

from __future__ import annotations

from sqlmodel import Field

from app.core.table import Numbered


class Dataset(Numbered, table=True):
    """A data file under `datasets/<id>`: `source.*` as it came, `rows.jsonl` as training reads it."""

    __tablename__ = "dataset"
    __table_args__ = ({"sqlite_autoincrement": True},)

    name: str = Field(unique=True)
    format: str  # a name in FORMATS
    rows: int
    bytes: int
    sha256: str = Field(index=True)  # of the file as it came
    rows_sha256: str  # of rows.jsonl: a run checks that it trains on what was queued
    created_at: float
