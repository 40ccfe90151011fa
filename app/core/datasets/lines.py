"""Lines of a text file, none so long that it takes the memory, and what text may not hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from app.core.errors import DatasetFormatError

MAX_ROW_CHARACTERS = 16 * 1024 * 1024
NUL_MESSAGE = "is not text: it holds a NUL character"


def read_lines(file: TextIO) -> Iterator[str]:
    """Lines no longer than MAX_ROW_CHARACTERS. Raises: DatasetFormatError at a longer one."""
    number = 0
    while line := file.readline(MAX_ROW_CHARACTERS):
        number += 1
        if len(line) == MAX_ROW_CHARACTERS and not line.endswith("\n"):
            raise DatasetFormatError(f"Line {number} is longer than {MAX_ROW_CHARACTERS:,} characters.", field="file")
        yield line


def holds_nul(value: Any) -> bool:
    """Whether a text anywhere in the value holds a NUL character."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict) and any("\0" in name for name in value):
        return True
    return any(holds_nul(child) for child in children(value))


def count_characters(value: Any) -> int:
    """Of all texts and bytes in the value; what is neither counts as one."""
    if isinstance(value, str | bytes):
        return len(value)
    inside = children(value)
    return sum(map(count_characters, inside)) if inside else 1


def children(value: Any) -> Iterable[Any]:
    """The values that a list, tuple or object holds."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()
