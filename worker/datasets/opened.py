"""Rows to be checked: those of a dataset, which are normalised, or those of a file whose format they tell."""

from __future__ import annotations

from typing import Protocol

from app.core.datasets.columns import Columns, rename
from app.core.datasets.faults import Row
from app.core.datasets.formats import FORMATS, Normalised
from app.core.datasets.normalise import RowReader


class Reader(Protocol):
    """What the doctor asks of rows. `format` is empty until a row has told it."""

    @property
    def format(self) -> str: ...

    def normalised(self, row: Row, number: int) -> Normalised:
        """The row as training reads it. Raises: RowFault, UnknownFormat, InvalidInput."""

    def read_fields(self, row: Row) -> Row:
        """What of the row is read, as it came."""

    def left_out(self, row: Row) -> str | None:
        """What of a row that was read is left out."""


class OfDataset:
    """Rows of a dataset: they were normalised when it was imported."""

    def __init__(self, format_name: str) -> None:
        self.format = format_name

    def normalised(self, row: Row, _number: int) -> Normalised:
        return row

    def read_fields(self, row: Row) -> Row:
        return row

    def left_out(self, _row: Row) -> None:
        return None


class OfFile:
    """Rows of a data file, with columns that are mapped by hand."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._reader = RowReader(columns)

    @property
    def format(self) -> str:
        return self._reader.format

    def normalised(self, row: Row, number: int) -> Normalised:
        return self._reader.normalised(row, number)

    def read_fields(self, row: Row) -> Row:
        names = (self._columns.get(field, field) for field in FORMATS[self.format].fields)
        return {name: row[name] for name in names if name in row}

    def left_out(self, row: Row) -> str | None:
        message = FORMATS[self.format].notice(rename(row, self._columns) if self._columns else row)
        return "opens with an answer that no user's turn precedes; it is left out" if message else None
