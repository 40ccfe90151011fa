"""Table of artifacts: what jobs produced."""

from __future__ import annotations

from typing import Any

from sqlalchemy import UniqueConstraint
from sqlmodel import Field

from app.core.table import Numbered, json_field


class Artifact(Numbered, table=True):
    """A finished folder below its job's folder: an adapter, a trained model, a checkpoint or a merged model."""

    __tablename__ = "artifact"
    __table_args__ = (UniqueConstraint("job_id", "path"), {"sqlite_autoincrement": True})

    job_id: int = Field(foreign_key="job.id", index=True)
    kind: str
    path: str  # relative to the job's folder
    step: int | None = None
    bytes: int
    files: list[dict[str, Any]] = json_field(nullable=False, default_factory=list)  # [{path, bytes, sha256}]
    verified: bool | None = None  # None: nothing to verify beyond the hashes
    certificate: dict[str, Any] | None = json_field(default=None)
    kept: bool = False  # of a checkpoint: somebody asked for it to stay, however many come after it
    created_at: float
