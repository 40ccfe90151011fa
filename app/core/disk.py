"""How full the data folder's disk is, and how much of that jobs have saved."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, func, select

from app.core.artifacts.models import Artifact

LOW_DISK_BYTES = 5 * 1024**3  # below, a run may not be able to save


@dataclass(frozen=True, slots=True)
class Disk:
    """`saved_bytes`: what artifacts take, as they were recorded; a file that two of them share counts twice."""

    free_bytes: int
    total_bytes: int
    saved_bytes: int

    @property
    def low(self) -> bool:
        return self.free_bytes < LOW_DISK_BYTES


def read_disk(session: Session, home: Path) -> Disk:
    """Of the data folder."""
    usage = shutil.disk_usage(home)
    saved = session.exec(select(func.coalesce(func.sum(Artifact.bytes), 0))).one()
    return Disk(usage.free, usage.total, int(saved))
