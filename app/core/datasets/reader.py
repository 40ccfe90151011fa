"""Read rows from JSON, JSONL, CSV and Parquet files: row by row, with a number for every fault."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Generator, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from app.core.datasets import lines
from app.core.datasets.csv_rows import read_csv
from app.core.datasets.faults import Row, RowFault
from app.core.datasets.json_array import NotJson, read_array, reason, refuse_constant
from app.core.datasets.marks import refuse_binary, utf_8_advice
from app.core.datasets.parquet import plain, read_parquet
from app.core.datasets.report import ProblemKind
from app.core.errors import DatasetFormatError, Fault

MAX_DEPTH = 64  # lists and objects in each other; what shows a row again walks it recursively
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
_DEEP = "is nested too deeply"
_DECODER = json.JSONDecoder(parse_constant=refuse_constant)  # made once: that takes longer than a short row
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

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
    refuse_binary(path)
    try:
        with path.open("rb") as raw, TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
            place.follow(path.stat().st_size, raw.tell)
            yield from read_csv(file, skip) if kind == ".csv" else _read_json(file, skip)
    except UnicodeDecodeError as error:
        line = _undecodable_line(path)
        fault = Fault("file", f"The file is not UTF-8 text (line {line}).", utf_8_advice())
        raise DatasetFormatError([fault]) from error


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
    for number, value in read_array(file, lines.MAX_ROW_CHARACTERS):
        if number > skip:
            yield number, _as_row(value)


def _read_lines(file: TextIO, skip: int) -> Iterator[_Numbered]:
    rows = (
        (line_number, line) for line_number, line in enumerate(lines.read_lines(file), start=1) if not line.isspace()
    )
    for number, (line_number, line) in enumerate(rows, start=1):
        if number > skip:
            yield number, _parse_line(line, line_number)


def _parse_line(line: str, line_number: int) -> Row | RowFault:
    try:
        return _as_row(_DECODER.decode(line.rstrip()))
    except MemoryError:
        return RowFault(
            "", f"holds more than fits into the memory that may be taken (line {line_number})", ProblemKind.UNREADABLE
        )
    except RecursionError as error:
        return RowFault("", f"is not valid JSON: {reason(error)} (line {line_number})", ProblemKind.UNREADABLE)
    except ValueError as error:
        column = f" column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        kind = ProblemKind.NOT_FINITE if isinstance(error, NotJson) else ProblemKind.UNREADABLE
        return RowFault("", f"is not valid JSON: {reason(error)} (line {line_number}{column})", kind)


def _as_parquet_row(row: Row) -> Row | RowFault:
    if lines.count_characters(row) > lines.MAX_ROW_CHARACTERS:
        return RowFault("", f"is longer than {lines.MAX_ROW_CHARACTERS:,} characters", ProblemKind.UNREADABLE)
    return _as_row(plain(row))


def _as_row(value: Any) -> Row | RowFault:
    if not isinstance(value, dict):
        return RowFault("", f"is not a JSON object but {type(value).__name__}", ProblemKind.UNREADABLE)
    if _is_deeper_than(value, MAX_DEPTH):
        return RowFault("", _DEEP, ProblemKind.UNREADABLE)
    try:
        text = _ENCODER.encode(value)
        text.encode()
    except UnicodeEncodeError:
        return RowFault("", "holds a lone surrogate, which is not valid Unicode text", ProblemKind.SURROGATE)
    except ValueError:  # 1e999 is valid JSON, but reads as infinity
        return RowFault("", "holds a number that is too large", ProblemKind.NOT_FINITE)
    if "\\u0000" in text and lines.holds_nul(value):  # the text may also spell a backslash before u0000
        return RowFault("", lines.NUL_MESSAGE, ProblemKind.UNREADABLE)
    return value


def _is_deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for item in level for child in lines.children(item)]
        if not level:
            return False
    return True
