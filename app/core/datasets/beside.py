"""What pages need beside a dataset's rows, written with them: where rows lie, and the first ones as they came.

So nobody reads the file as it came once more, whose reading wants limits of memory and time.
"""

from __future__ import annotations

import json
from pathlib import Path

from app.core.datasets.faults import Row
from app.core.paths import write_private

CAME, PLACES = "came.jsonl", "rows.index"  # in the dataset's folder
CAME_ROWS = 1000  # the first, at most
PLACED_ROWS = 1000  # from one place that is kept to the next
ROW_BYTES = 1 << 18  # of one that is shown
_CAME_BYTES = 1 << 22  # of all that are kept as they came
_DIGITS = 19  # of a place
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Beside:
    """Takes rows in their order."""

    def __init__(self) -> None:
        self._came: list[str] = []
        self._left = _CAME_BYTES
        self._places: list[int] = []
        self._rows = self._at = 0

    def add(self, row: Row, line: bytes) -> None:
        """A row as it came, and the line that is written of it."""
        if self._rows % PLACED_ROWS == 0:
            self._places.append(self._at)
        if self._rows < CAME_ROWS:
            self._came.append(self._encoded(row))
        self._rows += 1
        self._at += len(line)

    def _encoded(self, row: Row) -> str:
        line = _ENCODER.encode(row)
        size = len(line.encode())
        if size > min(ROW_BYTES, self._left):
            return "null"
        self._left -= size
        return line

    def write(self, folder: Path) -> None:
        """All rows were taken."""
        write_private(folder / CAME, "".join(f"{line}\n" for line in self._came))
        write_private(folder / PLACES, "".join(f"{place:0{_DIGITS}}\n" for place in self._places))


def place_of(folder: Path, index: int) -> tuple[int, int]:
    """Where to begin for the row of that index, from 0: an offset in bytes, and how many rows come before it there."""
    width, number = _DIGITS + 1, index // PLACED_ROWS
    try:
        with (folder / PLACES).open("rb") as file:
            file.seek(width * number)
            found = file.read(width)
    except FileNotFoundError:  # of a dataset that an earlier version has written
        found = b""
    return (int(found), index % PLACED_ROWS) if len(found) == width else (0, index)
