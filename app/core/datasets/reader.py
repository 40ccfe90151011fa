"""Read rows from JSON, JSONL and CSV files: row by row where the format allows, with a number for every fault."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from app.core.datasets.formats import RowFault
from app.core.errors import DatasetFormatError

MAX_ROW_CHARACTERS = 16 * 1024 * 1024
MAX_DEPTH = 64  # lists and objects in each other; what shows a row again walks it recursively
SUFFIXES = (".json", ".jsonl", ".csv")

Row = dict[str, Any]


def read_rows(path: Path, suffix: str | None = None) -> Iterator[tuple[int, Row | RowFault]]:
    """Yield (row number from 1, row or what is wrong with it).

    Raises: DatasetFormatError for a file that as a whole cannot be read.
    """
    kind = (suffix or path.suffix).lower()
    if kind not in SUFFIXES:
        raise DatasetFormatError(
            f"{kind or 'A file without a suffix'} is not one of {', '.join(SUFFIXES)}.", field="file"
        )
    _refuse_binary(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _read_csv(file) if kind == ".csv" else _read_json(file)
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


def _read_json(file: TextIO) -> Iterator[tuple[int, Row | RowFault]]:
    """A JSON array, or JSON Lines whatever the suffix says."""
    first = file.read(1)
    while first.isspace():
        first = file.read(1)
    file.seek(0)
    yield from _read_array(file) if first == "[" else _read_lines(file)


def _read_array(file: TextIO) -> Iterator[tuple[int, Row | RowFault]]:
    try:
        rows = json.load(file, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DatasetFormatError(f"The file is not valid JSON: {_reason(error)}", field="file") from error
    for number, row in enumerate(rows, start=1):
        yield number, _as_row(row)


def _read_lines(file: TextIO) -> Iterator[tuple[int, Row | RowFault]]:
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            yield number, _parse_line(line)


def _lines(file: TextIO) -> Iterator[str]:
    """Lines no longer than MAX_ROW_CHARACTERS. Raises: DatasetFormatError at a longer one."""
    number = 0
    while line := file.readline(MAX_ROW_CHARACTERS):
        number += 1
        if len(line) == MAX_ROW_CHARACTERS and not line.endswith("\n"):
            raise DatasetFormatError(f"Line {number} is longer than {MAX_ROW_CHARACTERS:,} characters.", field="file")
        yield line


def _parse_line(line: str) -> Row | RowFault:
    try:
        return _as_row(json.loads(line, parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:
        return RowFault("", f"is not valid JSON: {_reason(error)}")


def _as_row(value: Any) -> Row | RowFault:
    if not isinstance(value, dict):
        return RowFault("", f"is not a JSON object but {type(value).__name__}")
    if _is_deeper_than(value, MAX_DEPTH):
        return RowFault("", "is nested too deeply")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return RowFault("", "holds a lone surrogate, which is not valid Unicode text")
    except ValueError:  # 1e999 is valid JSON, but reads as infinity
        return RowFault("", "holds a number that is too large")
    return value


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


def _read_csv(file: TextIO) -> Iterator[tuple[int, Row | RowFault]]:
    csv.field_size_limit(MAX_ROW_CHARACTERS)
    reader = csv.DictReader(_lines(file), strict=True)
    number = 0
    try:
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                yield number, RowFault("", f"does not have the header's {len(reader.fieldnames or [])} columns")
            elif any("\0" in value for value in row.values()):
                yield number, RowFault("", "is not text: it holds a NUL character")
            else:
                yield number, row
    except csv.Error as error:
        raise DatasetFormatError(f"Row {number + 1} is not valid CSV: {error}", field="file") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
