"""A safetensors file written in pieces, past the system's file cache where the disk allows that.

Direct writes go from our memory to the disk, with no copy of them in the cache: the processor is left to the merge, and
the cache to what else is at work on the machine. They begin and end at pages, in the file and in memory.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from worker.artifacts.tensors import NAMES

PAGE = 4096


class ShardFile:
    """Its header is written first, so that each tensor's bytes can be put in their place, by several threads at once.

    Raises: OSError, also where the disk has no room for all of it.
    """

    def __init__(self, path: Path, tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
        header, self._offsets, data_bytes = _lay_out(tensors)
        self._data_begin = len(header)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._direct = _open_direct(path)
        try:
            os.posix_fallocate(self._descriptor, 0, len(header) + data_bytes)  # a disk that is too full says so now
            _write_all(self._descriptor, memoryview(header), 0)
        except OSError:
            self.close()
            raise

    def __enter__(self) -> ShardFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        """See it all onto the disk, where it is to stay."""
        try:
            if kind is None:
                os.fdatasync(self._descriptor)
        finally:
            self.close()

    def place(self, name: str, begin: int = 0) -> int:
        """Where in the file the tensor's byte `begin` lies."""
        return self._data_begin + self._offsets[name] + begin

    def write(self, place: int, raw: torch.Tensor) -> None:
        """Put bytes there; straight to the disk where they lie in memory as they are to lie in the file."""
        content, first = raw.numpy().data, -place % PAGE
        last = max(first, len(content) - (place + len(content)) % PAGE)
        if (raw.data_ptr() + first) % PAGE or not self._write_direct(content[first:last], place + first):
            _write_all(self._descriptor, content, place)
            return
        _write_all(self._descriptor, content[:first], place)
        _write_all(self._descriptor, content[last:], place + last)

    def _write_direct(self, content: memoryview, place: int) -> bool:
        """Whether it could be done: some file systems say only now that they have no direct writes."""
        if self._direct is None:
            return False
        try:
            _write_all(self._direct, content, place)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        return True

    def close(self) -> None:
        """As it is."""
        os.close(self._descriptor)
        if self._direct is not None:
            os.close(self._direct)


def page_aligned(count: int) -> torch.Tensor:
    """So many bytes of memory, from the begin of a page on."""
    return torch.frombuffer(mmap.mmap(-1, max(count, 1)), dtype=torch.uint8)


def _open_direct(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def _lay_out(tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> tuple[bytes, dict[str, int], int]:
    """The header, each tensor's first byte behind it, and the bytes behind it; wide types first, so all are aligned."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offsets, end = {}, 0
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: -item[1][0].itemsize):
        offsets[name], end = end, end + prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [offsets[name], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % PAGE)
    return struct.pack("<Q", len(text)) + text, offsets, end


def _write_all(descriptor: int, content: memoryview, place: int) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(descriptor, content[done:], place + done)
