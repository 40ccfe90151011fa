"""Read Parquet files a batch of rows at a time. DuckDB does the decoding; it is imported with the first such file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.core.datasets.lines import count_characters
from app.core.datasets.marks import refuse_no_parquet
from app.core.errors import DatasetFormatError, Fault

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BATCH_ROWS = 64  # at most
_ROW_CHARACTERS = 32  # what a row takes beside its values, in whatever it is written as
_BATCH_CHARACTERS = 4 * 1024 * 1024  # a batch that holds more is followed by a smaller one
_FREE_CHARACTERS = 64 * 1024 * 1024  # so much may come out of any file,
_MAX_RATIO = 200  # and so much out of each of its bytes
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "512MB",  # a row group's columns are decoded one at a time and must fit
    "temp_directory": "",  # nothing is written
    "threads": 1,
    "autoinstall_known_extensions": False,  # nothing is downloaded
    "autoload_known_extensions": False,
}
_QUERY = "SELECT * FROM read_parquet(?, hive_partitioning = false) OFFSET ?"


def read_parquet(
    path: Path, skip: int = 0, on_open: Callable[[int, Callable[[], int]], None] = lambda _total, _tell: None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row number from 1, row) behind the first `skip` rows, values as Python has them.

    `on_open` is told how many rows there are, and what says the number of the last one that was read.
    Raises: DatasetFormatError where it is not Parquet, or is damaged.
    """
    import duckdb

    refuse_no_parquet(path)
    number = skip
    try:
        with closing(duckdb.connect(":memory:", config=_CONFIG)) as connection:
            rows = _count(connection, path)
            limit = _limit(path.stat().st_size, rows)
            on_open(rows, lambda: number)
            connection.execute(_QUERY, [str(path), skip])
            names = [column[0] for column in connection.description or ()]
            for batch in _batches(connection, limit):
                for values in batch:
                    number += 1
                    yield number, dict(zip(names, values, strict=True))
    except duckdb.OutOfMemoryException as error:
        message = f"Its rows from {number + 1} on take more memory to decode than there is for it."
        raise DatasetFormatError(f"{message} Write the file with smaller row groups.", field="file") from error
    except (duckdb.Error, UnicodeDecodeError) as error:  # the latter for a field's name
        why = str(error).partition("\n")[0].replace(str(path), path.name)
        raise DatasetFormatError(f"The Parquet file is damaged behind row {number}: {why}", field="file") from error


def plain(value: Any) -> Any:
    """The value as JSON could hold it: NaN is null, times and decimals are texts, bytes are text or counted."""
    if isinstance(value, dict):
        return {str(name): plain(child) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain(child) for child in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return _text_or_size(value)
    return value if value is None or isinstance(value, str | int) else str(value)


def _limit(file_bytes: int, rows: int) -> int:
    """How many characters may come out of the file. Raises: DatasetFormatError where its rows alone take more."""
    limit = _FREE_CHARACTERS + _MAX_RATIO * file_bytes
    if rows * _ROW_CHARACTERS > limit:
        raise _bomb(f"Its {rows:,} rows are more than a file of {file_bytes:,} bytes may hold.")
    return limit


def _bomb(message: str) -> DatasetFormatError:
    return DatasetFormatError([Fault("file", message, "Write the file without compression.")])


def _batches(connection: DuckDBPyConnection, limit: int) -> Iterator[list[tuple[Any, ...]]]:
    """The rows, few at a time where they are large. Raises: DatasetFormatError where they hold more than the limit."""
    size, number, total = 1, 0, 0
    while batch := _fetch(connection, size):
        held = sum(_ROW_CHARACTERS + count_characters(row) for row in batch)
        number, total = number + len(batch), total + held
        if total > limit:
            raise _bomb(
                f"Its rows up to {number:,} hold more than the {limit:,} characters that a file of its size may."
            )
        yield batch
        size = min(2 * size, _BATCH_ROWS) if held <= _BATCH_CHARACTERS else max(size // 2, 1)


def _fetch(connection: DuckDBPyConnection, rows: int) -> list[tuple[Any, ...]]:
    return connection.fetchmany(rows)


def _text_or_size(value: bytes) -> str | dict[str, int]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"bytes": len(value)}


def _count(connection: DuckDBPyConnection, path: Path) -> int:
    row = connection.execute("SELECT sum(num_rows) FROM parquet_file_metadata(?)", [str(path)]).fetchone()
    return int(row[0]) if row and row[0] is not None else 0
