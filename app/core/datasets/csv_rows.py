"""Rows of a CSV file with a header and commas."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from app.core.datasets import lines
from app.core.datasets.faults import Row, RowFault
from app.core.datasets.report import ProblemKind
from app.core.errors import DatasetFormatError, Fault

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_csv(file: TextIO, skip: int) -> Iterator[tuple[int, Row | RowFault]]:
    """Yield (row number from 1, row or what is wrong with it) behind the first `skip` rows.

    Raises: DatasetFormatError for what is no CSV, or whose header cannot be used.
    """
    csv.field_size_limit(lines.MAX_ROW_CHARACTERS)
    reader = csv.DictReader(lines.read_lines(file), strict=True)
    number = 0
    try:
        _check_header(reader.fieldnames or ())
        for number, row in enumerate(reader, start=1):
            if number > skip:
                yield number, _as_row(row, reader)
    except csv.Error as error:
        message = f"Row {number + 1} is not valid CSV: {error} (line {reader.line_num})."
        raise DatasetFormatError(message, field="file") from error


def _check_header(names: Sequence[str]) -> None:
    """Raises: DatasetFormatError where it is not separated by commas, or names a column twice."""
    if len(names) == 1:
        for separator, spoken in _OTHER_SEPARATORS.items():
            if separator in names[0]:
                message = f"The header's columns are separated by {spoken}: {names[0][:200]!r}."
                raise DatasetFormatError([Fault("file", message, "Save the file with commas between its columns.")])
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        message = f"The header names the column {twice[0][:200]!r} more than once."
        raise DatasetFormatError([Fault("file", message, "Give each column a name of its own.")])


def _as_row(row: dict[str | Any, Any], reader: csv.DictReader[str]) -> Row | RowFault:
    names = reader.fieldnames or ()
    if None in row or None in row.values():
        return RowFault(
            "", f"does not have the header's {len(names)} columns (line {reader.line_num})", ProblemKind.UNREADABLE
        )
    if all(row[name] == name for name in names):
        return RowFault(
            "", f"is the header once more (line {reader.line_num}); remove that line", ProblemKind.UNREADABLE
        )
    return RowFault("", lines.NUL_MESSAGE, ProblemKind.UNREADABLE) if lines.holds_nul(row) else row
