"""Read rows from JSON, JSONL, CSV and Parquet files: row by row, with a number for every fault."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from app.core.datasets.faults import RowFault
from app.core.datasets.json_array import read_array, reason, refuse_constant
from app.core.datasets.parquet import plain, read_parquet
from app.core.errors import DatasetFormatError

MAX_ROW_CHARACTERS = 16 * 1024 * 1024
MAX_DEPTH = 64  # lists and objects in each other; what shows a row again walks it recursively
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_DEEP = "is nested too deeply"
_NUL = "is not text: it holds a NUL character"

Row = dict[str, Any]
_Numbered = tuple[int, Row | RowFault]


class Place:
    """How far a file has been read, for whoever shows progress: bytes of text, or rows of Parquet."""

    def __init__(self) -> None:
        self.total = 0
        self._tell: Callable[[], int] = lambda: 0

    @property
    def done(self) -> int:
        """Bytes or rows; 0 before the file is open."""
        return self._tell()

    def follow(self, total: int, tell: Callable[[], int]) -> None:
        """The file is open: how much there is, and how to ask for what is done."""
        self.total, self._tell = total, tell


def read_rows(
    path: Path, suffix: str | None = None, skip: int = 0, place: Place | None = None
) -> Generator[_Numbered, None, None]:
    """Yield (row number from 1, row or what is wrong with it), without the first `skip` rows, which are not checked.

    Rows are counted, not lines: blank lines have no number. `place` is kept up to date. Raises: DatasetFormatError for
    a file that as a whole cannot be read.
    """
    place = place or Place()
    kind = (suffix or path.suffix).lower()
    if kind not in SUFFIXES:
        raise DatasetFormatError(
            f"{kind or 'A file without a suffix'} is not one of {', '.join(SUFFIXES)}.", field="file"
        )
    if kind == ".parquet":
        yield from ((number, _as_parquet_row(row)) for number, row in read_parquet(path, skip, place.follow))
        return
    _refuse_binary(path)
    try:
        with path.open("rb") as raw, TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
            place.follow(path.stat().st_size, raw.tell)
            yield from _read_csv(file, skip) if kind == ".csv" else _read_json(file, skip)
    except UnicodeDecodeError as error:
        line = _undecodable_line(path)
        raise DatasetFormatError(f"The file is not UTF-8 text (line {line}).", field="file") from error


def _refuse_binary(path: Path) -> None:
    with path.open("rb") as file:
        if b"\0" in file.read(65536):
            raise DatasetFormatError("The file is not text (it holds NUL bytes).", field="file")


def _undecodable_line(path: Path) -> int:
    """The number of the first line that is not UTF-8."""
    decoder, number = codecs.getincrementaldecoder("utf-8")(), 1
    with path.open("rb") as file:
        while piece := file.readline(65536):
            try:
                decoder.decode(piece)
            except UnicodeDecodeError:
                return number
            number += piece.endswith(b"\n")
    return number


def _read_json(file: TextIO, skip: int) -> Iterator[_Numbered]:
    """A JSON array, or JSON Lines whatever the suffix says."""
    first = file.read(1)
    while first and first in " \t\r\n":
        first = file.read(1)
    file.seek(0)
    if first != "[":
        yield from _read_lines(file, skip)
        return
    for number, value in read_array(file, MAX_ROW_CHARACTERS):
        if number > skip:
            yield number, _as_row(value)


def _read_lines(file: TextIO, skip: int) -> Iterator[_Numbered]:
    rows = ((line_number, line) for line_number, line in enumerate(_lines(file), start=1) if not line.isspace())
    for number, (line_number, line) in enumerate(rows, start=1):
        if number > skip:
            yield number, _parse_line(line, line_number)


def _lines(file: TextIO) -> Iterator[str]:
    """Lines no longer than MAX_ROW_CHARACTERS. Raises: DatasetFormatError at a longer one."""
    number = 0
    while line := file.readline(MAX_ROW_CHARACTERS):
        number += 1
        if len(line) == MAX_ROW_CHARACTERS and not line.endswith("\n"):
            raise DatasetFormatError(f"Line {number} is longer than {MAX_ROW_CHARACTERS:,} characters.", field="file")
        yield line


def _parse_line(line: str, line_number: int) -> Row | RowFault:
    try:
        return _as_row(json.loads(line.rstrip(), parse_constant=refuse_constant))
    except (ValueError, RecursionError) as error:
        column = f" column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        return RowFault("", f"is not valid JSON: {reason(error)} (line {line_number}{column})")


def _as_parquet_row(row: Row) -> Row | RowFault:
    if _text_characters(row) > MAX_ROW_CHARACTERS:
        return RowFault("", f"is longer than {MAX_ROW_CHARACTERS:,} characters")
    return _as_row(plain(row))


def _text_characters(value: Any) -> int:
    return len(value) if isinstance(value, str) else sum(map(_text_characters, _children(value)))


def _as_row(value: Any) -> Row | RowFault:
    if not isinstance(value, dict):
        return RowFault("", f"is not a JSON object but {type(value).__name__}")
    if _is_deeper_than(value, MAX_DEPTH):
        return RowFault("", _DEEP)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        return RowFault("", "holds a lone surrogate, which is not valid Unicode text")
    except ValueError:  # 1e999 is valid JSON, but reads as infinity
        return RowFault("", "holds a number that is too large")
    if "\\u0000" in text and _holds_nul(value):  # the text may also spell a backslash before u0000
        return RowFault("", _NUL)
    return value


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict) and any("\0" in name for name in value):
        return True
    return any(_holds_nul(child) for child in _children(value))


def _is_deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _read_csv(file: TextIO, skip: int) -> Iterator[_Numbered]:
    csv.field_size_limit(MAX_ROW_CHARACTERS)
    reader = csv.DictReader(_lines(file), strict=True)
    number = 0
    try:
        for number, row in enumerate(reader, start=1):
            if number > skip:
                yield number, _as_csv_row(row, reader)
    except csv.Error as error:
        message = f"Row {number + 1} is not valid CSV: {error} (line {reader.line_num})."
        raise DatasetFormatError(message, field="file") from error


def _as_csv_row(row: dict[str | Any, Any], reader: csv.DictReader[str]) -> Row | RowFault:
    if None in row or None in row.values():
        columns = len(reader.fieldnames or [])
        return RowFault("", f"does not have the header's {columns} columns (line {reader.line_num})")
    return RowFault("", _NUL) if _holds_nul(row) else row
