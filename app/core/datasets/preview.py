"""Rows of a registered dataset: as they came, and as training reads them. As many of their bytes as a page can show."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any, BinaryIO

from app.core.datasets.beside import CAME, CAME_ROWS, ROW_BYTES, place_of
from app.core.datasets.faults import Row
from app.core.datasets.formats import Normalised
from app.core.datasets.models import Dataset
from app.core.datasets.normalise import ROWS
from app.core.paths import DataFolder

_SHOWN_BYTES = 1 << 22  # of all rows together
_PIECE_BYTES = 1 << 20


def preview_raw(folder: DataFolder, dataset: Dataset, first: int = 1, count: int = 10) -> list[Row | None]:
    """Rows as they came, from row `first` (from 1); None for those that are not kept so: far ones, and long ones."""
    count = max(0, min(count, dataset.rows + 1 - first))
    kept: list[Row | None] = []
    path = folder.dataset(dataset.key) / CAME
    if first <= CAME_ROWS and path.is_file():
        with path.open("rb") as file:
            kept = [json.loads(line) for line in islice(file, first - 1, first - 1 + count)]
    return kept + [None] * (count - len(kept))


def preview_rows(folder: DataFolder, dataset: Dataset, first: int = 1, count: int = 10) -> list[Normalised | None]:
    """Rows as training reads them, from row `first` (from 1); None for those that are too long to be shown."""
    count = max(0, min(count, dataset.rows + 1 - first))
    if not count:
        return []
    place, skipped = place_of(folder.dataset(dataset.key), first - 1)
    with (folder.dataset(dataset.key) / ROWS).open("rb") as file:
        file.seek(place)
        for _ in range(skipped):
            _read_line(file, 0)
        return _read_rows(file, count)


def _read_rows(file: BinaryIO, count: int) -> list[Normalised | None]:
    rows: list[Any] = []
    left = _SHOWN_BYTES
    for _ in range(count):
        line = _read_line(file, min(ROW_BYTES, left))
        if line == b"":
            break
        rows.append(None if line is None else json.loads(line))
        left -= len(line or b"")
    return rows


def _read_line(file: BinaryIO, most: int) -> bytes | None:
    """The next line; None, and it is passed over, where it has more bytes than that."""
    line = piece = file.readline(most + 1)
    while piece and not piece.endswith(b"\n"):
        piece = file.readline(_PIECE_BYTES)
    return line if line.endswith(b"\n") or len(line) <= most else None
