"""Safetensors files read and written in pieces: a tensor, or some of its rows, at a time; nothing is mapped or held.

Source: https://huggingface.co/docs/safetensors: 8 bytes little-endian length, so many bytes of JSON, then the tensors.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from worker.base_models.checks import read_header

DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 8  # of the data's begin


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file; `offset` is where its bytes begin, counted from the file's begin."""

    file: Path
    dtype_name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def dtype(self) -> torch.dtype | None:
        """None for a type that is not read here, such as eight-bit floats."""
        return DTYPES.get(self.dtype_name)

    @property
    def elements(self) -> int:
        return prod(self.shape)


def list_tensors(file: Path) -> dict[str, Stored]:
    """Every tensor of a file, in the order in which they lie there. Raises: ModelLoadError."""
    header, data_bytes = read_header(file)
    data_begin = file.stat().st_size - data_bytes
    found = {
        name: Stored(file, entry["dtype"], tuple(entry["shape"]), data_begin + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }
    return dict(sorted(found.items(), key=lambda item: item[1].offset))


def read_tensor(stored: Stored) -> torch.Tensor:
    """All of it, in fp32."""
    if stored.dtype is None:
        raise ValueError(f"tensors of type {stored.dtype_name} cannot be read")
    raw = torch.empty(stored.elements * stored.dtype.itemsize, dtype=torch.uint8)
    descriptor = os.open(stored.file, os.O_RDONLY)
    try:
        read_into(descriptor, stored.offset, raw)
    finally:
        os.close(descriptor)
    return raw.view(stored.dtype).reshape(stored.shape).float()


def read_into(descriptor: int, offset: int, raw: torch.Tensor) -> None:
    """Fill the bytes `raw` from the file's `offset` on. Raises: OSError where the file ends before."""
    into, done = raw.numpy().data, 0
    while done < len(into):
        count = os.preadv(descriptor, [into[done:]], offset + done)
        if count == 0:
            raise OSError(f"the file ends {len(into) - done} bytes before its tensor does")
        done += count


class ShardFile:
    """A safetensors file whose header is written first, so that each tensor's bytes can be put in their place."""

    def __init__(self, path: Path, tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
        header, self._offsets, data_bytes = _lay_out(tensors)
        self.path, self.bytes = path, len(header) + data_bytes
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(self._descriptor, 0, self.bytes)  # a disk that is too full says so now
            _write_all(self._descriptor, memoryview(header), 0)
        except OSError:
            self.close()
            raise
        self._data_begin = len(header)

    def write(self, name: str, begin: int, raw: torch.Tensor) -> None:
        """Put bytes at `begin`, counted from the tensor's first byte."""
        offset = self._data_begin + self._offsets[name] + begin
        _write_all(self._descriptor, raw.numpy().data, offset)

    def sync(self) -> None:
        """See what was written so far onto the disk."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def _lay_out(tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> tuple[bytes, dict[str, int], int]:
    """The header, each tensor's first byte behind it, and the bytes behind it; wide types first, so all are aligned."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offsets, end = {}, 0
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: -item[1][0].itemsize):
        offsets[name], end = end, end + prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [offsets[name], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text)) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text, offsets, end


def _write_all(descriptor: int, content: memoryview, offset: int) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(descriptor, content[done:], offset + done)
