"""Rows of a registered dataset: as they came, and as training reads them."""

from __future__ import annotations

import json
from contextlib import closing
from itertools import islice

from app.core.datasets.faults import RowFault
from app.core.datasets.formats import Normalised
from app.core.datasets.models import Dataset
from app.core.datasets.reader import Row, read_rows
from app.core.datasets.store import rows_path
from app.core.paths import DataFolder


def preview_raw(folder: DataFolder, dataset: Dataset, first: int = 1, count: int = 10) -> list[Row]:
    """Rows as they came, from row `first` (from 1)."""
    if first > dataset.rows:
        return []
    source = next(folder.dataset(dataset.key).glob("source.*"))
    with closing(read_rows(source, skip=first - 1)) as rows:
        return [row for _number, row in islice(rows, count) if not isinstance(row, RowFault)]


def preview_rows(folder: DataFolder, dataset: Dataset, first: int = 1, count: int = 10) -> list[Normalised]:
    """Rows as training reads them, from row `first` (from 1)."""
    if first > dataset.rows:
        return []
    with rows_path(folder, dataset).open(encoding="utf-8") as file:
        return [json.loads(line) for line in islice(file, first - 1, first - 1 + count)]
