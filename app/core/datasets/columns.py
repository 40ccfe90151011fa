"""Columns mapped by hand: which column of a file is read as which field of a format."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from app.core.datasets.formats import FIELDS
from app.core.errors import Fault, InvalidInput

Columns = dict[str, str]  # field of a format -> column of the file


def parse_columns(pairs: Sequence[str]) -> Columns:
    """Each pair is `field=column`, as `instruction=question`; empty ones are passed over.

    Raises: InvalidInput on `column`, with every fault.
    """
    columns: Columns = {}
    faults: list[Fault] = []
    for pair in filter(None, pairs):
        field, equals, column = pair.partition("=")
        message = _fault(field, equals + column, columns)
        if message:
            faults.append(Fault("column", f"{pair[:200]!r} {message}", "Write FIELD=COLUMN, as instruction=question."))
        columns[field] = column
    if faults:
        raise InvalidInput(faults)
    return columns


def _fault(field: str, rest: str, known: Columns) -> str | None:
    if len(rest) < 2:
        return "does not name a field and a column"
    if field not in FIELDS:
        return f"maps to no known field; known: {', '.join(FIELDS)}"
    return f"maps a second column to {field}" if field in known else None


def rename(row: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """The row with its mapped columns under their fields' names. A field that was there under that name gives way."""
    moved = {field: row[column] for field, column in columns.items() if column in row}
    taken = set(columns) | set(columns.values())
    return {**{name: value for name, value in row.items() if name not in taken}, **moved}


def check_columns(row: Mapping[str, Any], columns: Columns) -> None:
    """Raises: InvalidInput where a file's first row lacks a mapped column."""
    missing = [column for column in columns.values() if column not in row]
    if missing:
        message = f"the first row has no {', '.join(map(repr, missing))}; its fields are {named(row)}"
        raise InvalidInput(message, field="column")


def named(fields: Collection[str]) -> str:
    """Fields of a row for a message: the first twenty, long ones cut."""
    names = [repr(name[:80]) for name in list(fields)[:20]]
    return ", ".join(names + (["…"] if len(fields) > 20 else [])) or "none"
