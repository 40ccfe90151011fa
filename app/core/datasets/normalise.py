"""Check every row of a data file and write the copy that training reads."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.datasets.beside import Beside
from app.core.datasets.columns import Columns, check_columns, named, rename
from app.core.datasets.faults import Row, RowFault
from app.core.datasets.formats import FORMATS, Normalised, recognise, to_row
from app.core.datasets.kinds import RowKind
from app.core.datasets.reader import read_rows
from app.core.datasets.report import ProblemKind
from app.core.errors import DatasetFormatError, Fault

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
UNMAPPED = "unmapped"  # in an import's summary: the columns of a file of unknown format
ROWS = "rows.jsonl"  # in a dataset's folder: the copy that training reads
MAX_FAULTS = 20  # so many are named; the rest are counted
MAX_COLUMNS = 40  # of an unknown format, so many are offered to be mapped by hand
MAX_COLUMN_NAME = 200  # characters
_NOTED_ROWS = 5  # likewise, of rows that are used but not whole


class UnknownFormat(DatasetFormatError):
    """The rows' fields are of no known format. `fields` are those found, so that they can be mapped."""

    def __init__(self, fields: Sequence[str], faults: Sequence[Fault] | None = None) -> None:
        self.fields = list(fields)
        super().__init__(faults or [self._fault()])

    def _fault(self) -> Fault:
        message = f"The rows' format is not known: the first row has the fields {named(self.fields)}."
        known = "; ".join(map(str, FORMATS.values()))
        advice = f"Known formats: {known}. Or map columns to their fields, as instruction=question."
        return Fault("file", message, advice)

    @property
    def columns(self) -> list[str]:
        """The first fields of usual length, as many as somebody would map by hand."""
        return [name for name in self.fields if name and len(name) <= MAX_COLUMN_NAME][:MAX_COLUMNS]


@dataclass(frozen=True, slots=True)
class Checked:
    """A data file that can be trained on."""

    format: str
    kind: RowKind
    columns: Columns
    rows: int
    rows_sha256: str
    notices: tuple[str, ...] = ()  # what was left out of which rows

    def noted(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """A dataset's `source` with the notices, where there are any."""
        return {**source, "notices": list(self.notices)} if self.notices else dict(source)


def normalise(source: Path, target: Path, suffix: str | None = None, columns: Columns | None = None) -> Checked:
    """Write `source`'s rows to `target`, as `normalise_rows` does."""
    return normalise_rows(read_rows(source, suffix), target, columns)


def normalise_rows(
    numbered: Iterable[tuple[int | str, Row | RowFault]],
    target: Path,
    columns: Columns | None = None,
    faults: Faults | None = None,
) -> Checked:
    """Write rows to `target`, one a line, as what RowKind says of the format's kind; and what pages need beside them.

    Each comes with its number. A role may be `tool`, which not every chat template takes. `faults` gathers what is
    wrong, for whoever looks at it meanwhile. Raises: DatasetFormatError with row numbers; InvalidInput on `column`
    where a mapped column is not there.
    """
    rows, faults = RowReader(columns or {}), faults or Faults()
    digest, count, beside = hashlib.sha256(), 0, Beside()
    with target.open("wb") as out:
        for number, row in numbered:
            try:
                line = _line(rows.normalised(row, number))
            except RowFault as fault:
                faults.add(fault, number)
                continue
            count += 1
            digest.update(line)
            out.write(line)
            if not isinstance(row, RowFault):
                beside.add(row, line)
        out.flush()
        os.fsync(out.fileno())
    faults.raise_any()
    if not count:
        raise DatasetFormatError("The dataset is empty: it holds no rows.", field="file")
    beside.write(target.parent)
    kind, notices = FORMATS[rows.format].kind, tuple(map(str, rows.notices.values()))
    return Checked(rows.format, kind, rows.columns, count, digest.hexdigest(), notices)


@dataclass(slots=True)
class _Notice:
    """What was left out, of how many rows, and the first of them."""

    message: str
    count: int = 0
    first: list[int | str] = field(default_factory=list)

    def add(self, number: int | str) -> None:
        self.count += 1
        if len(self.first) < _NOTED_ROWS:
            self.first.append(number)

    def __str__(self) -> str:
        rows = ", ".join(map(str, self.first)) + (", …" if self.count > len(self.first) else "")
        return f"{self.message} {self.count:,} row{'s' if self.count > 1 else ''}: {rows}"


@dataclass(slots=True)
class RowReader:
    """Reads rows of one file as training does: all have the format of the first that can be read."""

    columns: Columns
    format: str = ""
    notices: dict[str, _Notice] = field(default_factory=dict)

    def normalised(self, row: Row | RowFault, number: int | str) -> Normalised:
        """The row as training reads it. Raises: RowFault; UnknownFormat or InvalidInput at the first row."""
        if isinstance(row, RowFault):
            raise row
        renamed = rename(row, self.columns) if self.columns else row
        self.format = self.format or self._recognise_first(row, renamed)
        if not FORMATS[self.format].fits(renamed):
            self._refuse_other_format(renamed)
        try:
            read = to_row(renamed, self.format)
        except RowFault as fault:
            raise RowFault(self._as_in_file(fault.field), fault.message, fault.kind) from fault
        if notice := FORMATS[self.format].notice(renamed):
            self.notices.setdefault(notice, _Notice(notice)).add(number)
        return read

    def _as_in_file(self, field: str) -> str:
        """The field's column where one is mapped to it, so that the fault can be found in the file."""
        name = re.split(r"[.\[]", field, maxsplit=1)[0]
        return f"{self.columns[name]}{field[len(name) :]} (as {name})" if name in self.columns else field

    def _recognise_first(self, row: Row, renamed: Row) -> str:
        check_columns(row, self.columns)
        name = recognise(renamed, wanted=self.columns)
        if name is None:
            raise UnknownFormat(list(row))
        return name

    def _refuse_other_format(self, row: Row) -> None:
        other = recognise(row)
        if other is not None:
            message = f"is {other}, but the file's first row is {self.format}: one file holds one format"
            raise RowFault("", message, ProblemKind.FORMAT)


@dataclass(slots=True)
class Faults:
    """The first faults by row, and how many there are."""

    named: list[Fault] = field(default_factory=list)
    count: int = 0

    def add(self, fault: RowFault, number: int | str) -> None:
        self.count += 1
        if len(self.named) < MAX_FAULTS:
            self.named.append(fault.at(number))

    def raise_any(self) -> None:
        """Raises: DatasetFormatError."""
        more = self.count - len(self.named)
        if self.named:
            raise DatasetFormatError([*self.named, *([Fault("file", f"and {more:,} more rows")] if more else [])])


def _line(row: Normalised) -> bytes:
    return _ENCODER.encode(row).encode() + b"\n"
