"""A dataset's normalised rows: read line by line, and split into training and eval rows."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from app.core.datasets.split import held_out_of
from app.core.datasets.turns import UNLEARNED
from app.core.errors import DatasetFormatError, Fault

Messages = list[dict[str, str]]
Object = dict[str, Any]
Read = TypeVar("Read")

_SETTLED_NS = 2 * 10**9  # of two changes within a tick of the file system's clock the second leaves no trace
_hashes: dict[tuple[str, int, int, int], str] = {}


def read_rows(path: Path, sha256: str | None = None) -> Iterator[Messages]:
    """Yield the messages of each line of normalised JSONL. Raises: DatasetFormatError where the file has changed."""
    check_unchanged(path, sha256)
    return read_as(path, messages_of)


def read_as(path: Path, take: Callable[[Object], Read], chosen: Collection[int] | None = None) -> Iterator[Read]:
    """Yield what `take` makes of each line's object, or of the `chosen` lines (counted from 0), in the file's order.

    `take` may raise ValueError, KeyError or TypeError. Raises: DatasetFormatError naming the row.
    """
    wanted = chosen if chosen is None or isinstance(chosen, range) else frozenset(chosen)  # a list is slow to search
    left = -1 if wanted is None else len(wanted)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if left == 0:
                return
            if wanted is None or number - 1 in wanted:
                left -= 1
                yield _parse_row(line, take, number)


def messages_of(row: Object) -> Messages:
    """The turns of a row of messages. Raises: KeyError, TypeError."""
    return as_messages(row["messages"])


def text_of(row: Object) -> str:
    """The text of a row of plain text. Raises: KeyError, TypeError."""
    text = row["text"]
    if not isinstance(text, str):
        raise TypeError("text is not a string")
    return text


def as_messages(turns: Any) -> Messages:
    """Turns with role and content as strings, and of an answer that it is not learned. Raises: KeyError, TypeError."""
    return [
        {"role": str(t["role"]), "content": str(t["content"])} | (UNLEARNED if "weight" in t else {}) for t in turns
    ]


def hash_rows(path: Path) -> str:
    """The file's SHA-256. One that was found before holds while size, inode and time of change are the same."""
    stat = path.stat()
    stamp = (str(path), stat.st_size, stat.st_ino, stat.st_mtime_ns)
    if stamp in _hashes:
        return _hashes[stamp]
    settled = time.time_ns() - stat.st_mtime_ns > _SETTLED_NS
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if settled:
        _hashes[stamp] = found
    return found


def check_unchanged(path: Path, sha256: str | None) -> str:
    """The file's SHA-256. Raises: DatasetFormatError where it is not `sha256`; without one it may be any."""
    found = hash_rows(path)
    if sha256 and found != sha256:
        raise DatasetFormatError(
            [Fault("dataset", f"{path.name} has changed since the job was queued", "Queue it anew.")]
        )
    return found


def _parse_row(line: bytes, take: Callable[[Object], Read], number: int) -> Read:
    try:
        return take(json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        raise row_error(number, f"is not a normalised row as its dataset says ({error})") from error


def row_error(number: int, message: str, advice: str | None = None) -> DatasetFormatError:
    """A dataset error that names the row, counted from 1."""
    return DatasetFormatError([Fault("dataset", f"row {number} {message}", advice)])


def split_rows(count: int, eval_fraction: float, seed: int, at_most: int | None = None) -> tuple[list[int], list[int]]:
    """Indices of the training and of the eval rows, both ascending; the same for the same seed.

    At least one row is held out where a share is asked for, no more than `at_most`, and at least one is trained on.
    """
    held_out = set(random.Random(seed).sample(range(count), held_out_of(count, eval_fraction, at_most)))
    return [i for i in range(count) if i not in held_out], sorted(held_out)
