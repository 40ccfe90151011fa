"""Rows of a registered dataset: as they came, and as training reads them."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import closing
from itertools import islice

from app.core.datasets.faults import Row, RowFault
from app.core.datasets.formats import Normalised
from app.core.datasets.models import Dataset
from app.core.datasets.reader import read_rows
from app.core.datasets.store import rows_path
from app.core.paths import DataFolder


def preview_raw(folder: DataFolder, dataset: Dataset, first: int = 1, count: int = 10) -> list[Row]:
    """Rows as they came, from row `first` (from 1)."""
    if first > dataset.rows:
        return []
    with closing(_raw_rows(folder, dataset, skip=first - 1)) as rows:
        return list(islice(rows, count))


def _raw_rows(folder: DataFolder, dataset: Dataset, skip: int) -> Generator[Row, None, None]:
    """Rows as they came; those of a hub dataset may lie in several files."""
    sources = sorted(folder.dataset(dataset.key).glob("source.*"))
    counts = [file["rows"] for file in dataset.source.get("files", ())] or [dataset.rows]
    for source, count in zip(sources, counts, strict=True):
        if skip < count:
            with closing(read_rows(source, skip=skip)) as rows:
                yield from (row for _number, row in rows if not isinstance(row, RowFault))
        skip = max(0, skip - count)


def preview_rows(folder: DataFolder, dataset: Dataset, first: int = 1, count: int = 10) -> list[Normalised]:
    """Rows as training reads them, from row `first` (from 1)."""
    if first > dataset.rows:
        return []
    with rows_path(folder, dataset).open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, first - 1, first - 1 + count)]
