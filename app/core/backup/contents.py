"""Which files of the data folder belong into a backup: those that the database names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from app.core.artifacts.manifest import kept_mark
from app.core.artifacts.models import Artifact
from app.core.artifacts.store import META
from app.core.datasets.models import Dataset
from app.core.jobs.models import Job
from app.core.jobs.receipts import RECEIPT
from app.core.models.models import BaseModel
from app.core.paths import DataFolder

_OF_EVERY_JOB = ("spec.yaml", "train.log", RECEIPT)
_ROWS = "rows.jsonl"
_NEVER = (
    "what unfinished jobs go on from: they start anew",
    "the API token",
    "tokens of other services (secrets/): set them again",
)


@dataclass(frozen=True, slots=True)
class Named:
    """A file that the database names, relative to the data folder, and its SHA-256 where that is known."""

    path: str
    sha256: str | None = None
    required: bool = True  # else it may be there or not: not every job leaves a receipt


def list_named(session: Session, folder: DataFolder, *, with_files: bool) -> Iterator[Named]:
    """Each job's spec, log and receipt; with files also what jobs produced and the data of datasets."""
    for job_id in session.exec(select(Job.id).order_by(col(Job.id))):
        yield from (Named(f"jobs/{job_id}/{name}", required=False) for name in _OF_EVERY_JOB)
    if not with_files:
        return
    for artifact in session.exec(select(Artifact).order_by(col(Artifact.id))):
        yield from _of_artifact(artifact)
    for dataset in session.exec(select(Dataset).order_by(col(Dataset.id))):
        yield from _of_dataset(folder, dataset)


def _of_artifact(artifact: Artifact) -> Iterator[Named]:
    listed = {file["path"]: file["sha256"] for file in artifact.files}
    listed.setdefault(META, None)  # earlier versions did not list it
    for path, sha256 in listed.items():
        yield Named(f"jobs/{artifact.job_id}/{artifact.path}/{path}", sha256)
    if artifact.kept:  # by the mark beside it a training that is started again knows that
        yield Named(f"jobs/{artifact.job_id}/{kept_mark(Path(artifact.path))}", required=False)


def _of_dataset(folder: DataFolder, dataset: Dataset) -> Iterator[Named]:
    """Source and rows; what jobs keep there to start sooner (in folders) is made again."""
    if dataset.rows_sha256:
        yield Named(f"datasets/{dataset.id}/{_ROWS}", dataset.rows_sha256)
    place = folder.dataset(dataset.key)
    names = sorted(path.name for path in place.iterdir() if path.is_file()) if place.is_dir() else []
    yield from (Named(f"datasets/{dataset.id}/{name}") for name in names if name != _ROWS)


def list_left_out(session: Session, *, with_files: bool) -> list[dict[str, Any]]:
    """[{what, count, bytes}] of what the database names and the backup does not hold."""
    left = [("files of base models: register or import them again", *_sizes(session, BaseModel))]
    if not with_files:
        left.append(("adapters, models and checkpoints: --with-files takes them", *_sizes(session, Artifact)))
        left.append(("files of datasets: --with-files takes them", *_sizes(session, Dataset)))
    counted = [{"what": what, "count": count, "bytes": size} for what, count, size in left if count]
    return [*counted, *({"what": what, "count": None, "bytes": None} for what in _NEVER)]


def _sizes(session: Session, table: type[BaseModel] | type[Artifact] | type[Dataset]) -> tuple[int, int]:
    count, size = session.exec(select(func.count(), func.sum(table.bytes)).select_from(table)).one()
    return count, int(size or 0)
