"""The header of a GGUF file: its metadata and its tensors' names and shapes. No weight is read, and no gguf package.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.core.errors import InvalidInput

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_HEADER_BYTES = 64 * 1024**2  # vocabularies of 260,000 tokens take 10 MiB
_MAX_COUNT = 2**21  # entries of one array, keys, tensors
_MAX_DIMENSIONS = 4

Value = int | float | bool | str


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata without its arrays; shapes as PyTorch orders them: (out, in) for a matrix."""

    metadata: dict[str, Value]
    shapes: dict[str, tuple[int, ...]]


def read_header(path: Path, field: str = "path") -> GgufHeader:
    """Raises: InvalidInput where the file is no GGUF, is damaged or ends before its weights do."""
    try:
        with path.open("rb") as file:
            return _Reader(file, path.stat().st_size).read()
    except (OSError, ValueError, struct.error) as error:
        raise InvalidInput(f"{path.name} is not a readable GGUF file: {error}", field=field) from error


class _Reader:
    """Reads forwards; every count and length is checked before it is followed. Raises: ValueError."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._position = 0

    def read(self) -> GgufHeader:
        if self._take(4) != _MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self._number("I")
        if version not in _VERSIONS:
            raise ValueError(f"it has version {version}; versions 2 and 3 are read")
        tensors, keys = self._count("tensors"), self._count("keys")
        metadata = self._metadata(keys)
        shapes, last = self._tensors(tensors)
        if self._position + last > self._size:
            raise ValueError(f"it is cut short at {self._size:,} bytes, before its last tensor")
        return GgufHeader(metadata, shapes)

    def _metadata(self, keys: int) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for _ in range(keys):
            key, kind = self._string(), int(self._number("I"))
            if kind == _ARRAY:
                self._skip_array()
            else:
                values[key] = self._string() if kind == _STRING else self._number(_format(kind))
        return values

    def _tensors(self, count: int) -> tuple[dict[str, tuple[int, ...]], int]:
        """Shapes by name, and where the last tensor begins behind the header, in bytes."""
        shapes: dict[str, tuple[int, ...]] = {}
        last = 0
        for _ in range(count):
            name, dimensions = self._string(), int(self._number("I"))
            if dimensions > _MAX_DIMENSIONS:
                raise ValueError(f"tensor {name[:80]!r} has {dimensions} dimensions")
            shapes[name] = tuple(int(self._number("Q")) for _ in range(dimensions))[::-1]
            _type, offset = self._number("I"), int(self._number("Q"))
            last = max(last, offset)
        return shapes, last

    def _skip_array(self) -> None:
        kind, count = int(self._number("I")), self._count("array entries")
        if kind != _STRING:
            self._file.seek(self._advance(count * struct.calcsize(_format(kind))), os.SEEK_CUR)
            return
        for _ in range(count):
            self._string_bytes()

    def _count(self, what: str) -> int:
        count = int(self._number("Q"))
        if count > _MAX_COUNT:
            raise ValueError(f"it claims {count:,} {what}")
        return count

    def _string(self) -> str:
        return self._string_bytes().decode("utf-8")

    def _string_bytes(self) -> bytes:
        return self._take(int.from_bytes(self._take(8), "little"))

    def _number(self, letter: str) -> Value:
        value: Value = struct.unpack(f"<{letter}", self._take(struct.calcsize(f"<{letter}")))[0]
        return value

    def _take(self, length: int) -> bytes:
        return self._file.read(self._advance(length))

    def _advance(self, length: int) -> int:
        self._position += length
        if self._position > self._size:
            raise ValueError(f"it is cut short at {self._size:,} bytes, within its header")
        if self._position > _MAX_HEADER_BYTES:
            raise ValueError(f"its header is longer than {_MAX_HEADER_BYTES:,} bytes")
        return length


def _format(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"it has a value of the unknown type {kind}")
    return _SCALARS[kind]
