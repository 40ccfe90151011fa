"""Datasets of the Hugging Face hub: register one by its id, import it by a job, take in what the job found."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlmodel import Session, select

from app.core.datasets.columns import Columns
from app.core.datasets.kinds import RowKind
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.errors import Conflict, Fault, InvalidInput
from app.core.jobs.imports import queue_import
from app.core.names import clean_name, is_hub_id, name_taken

MAX_PART = 200  # characters of a config, split or revision
_FACTS = ("format", "rows", "bytes", "sha256", "rows_sha256", "columns", "source")


@dataclass(frozen=True, slots=True)
class HubReference:
    """Which rows of the hub are meant. What is None is what the repository has by default, or its only one."""

    hub_id: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None  # a branch, tag or commit

    def to_source(self) -> dict[str, Any]:
        """As `Dataset.source` keeps it: {kind: hub, hub_id, …}, without what is None. Raises: InvalidInput."""
        values = {name: value.strip() for name, value in asdict(self).items() if value and value.strip()}
        faults = [
            Fault(name, f"{value[:80]!r} is not a {name}: it is too long or holds characters that cannot be shown.")
            for name, value in values.items()
            if len(value) > MAX_PART or not value.isprintable()
        ]
        if not is_hub_id(self.hub_id.strip()):
            faults.insert(0, Fault("hub_id", f"{self.hub_id[:200]!r} is not a hub id.", "A hub id reads owner/name."))
        if faults:
            raise InvalidInput(faults)
        return {"kind": "hub", **values}


def add_from_hub(
    session: Session, reference: HubReference, name: str | None = None, columns: Columns | None = None
) -> Dataset:
    """Register a dataset by name now and queue the job that downloads it.

    The name of a hub dataset whose import failed is used again: it is imported again, as is asked now. Raises:
    InvalidInput; Conflict on `name` where it is taken.
    """
    source = reference.to_source()
    name = clean_name(name or source["hub_id"].rpartition("/")[2].lower(), "dataset")
    known = session.exec(select(Dataset).where(Dataset.name == name)).first()
    if known is None:
        known = Dataset(name=name, created_at=time.time(), format="", rows=0, bytes=0, sha256="", rows_sha256="")
    elif known.status != DatasetStatus.FAILED:
        raise name_taken(name, "dataset")
    known.source, known.columns = source, columns or {}
    return _queue_import(session, known)


def import_again(session: Session, dataset: Dataset, columns: Columns | None = None) -> Dataset:
    """Queue the import of a dataset whose last one failed or was cancelled, with other columns where they are given.

    Raises: Conflict for any other.
    """
    if dataset.status != DatasetStatus.FAILED:
        raise Conflict(f"{dataset.name} is {dataset.status}; only a dataset whose import failed is imported again.")
    if columns is not None:
        dataset.columns = columns
    return _queue_import(session, dataset)


def _queue_import(session: Session, dataset: Dataset) -> Dataset:
    dataset.status, dataset.error = DatasetStatus.IMPORTING, None
    session.add(dataset)
    session.flush()
    queue_import(session, dataset.name, dataset.source, dataset_id=dataset.key)
    return dataset


def set_facts(dataset: Dataset, facts: Mapping[str, Any]) -> None:
    """The dataset is ready, and this is what its import found. Raises: KeyError, ValueError where a fact is missing."""
    for field in _FACTS:
        setattr(dataset, field, facts[field])
    dataset.kind = RowKind(facts["kind"])
    dataset.status, dataset.error = DatasetStatus.READY, None
