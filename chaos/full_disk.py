"""A disk that fills up at a chosen write, for code in this process: every file below a folder is written through it.

Python's own files and `os.write` are counted write by write; what torch and safetensors write in C++ and Rust is
written by Python instead, in parts. What a tokenizer writes in Rust is not counted. A full disk says ENOSPC to every
write until there is room again; the one that fills it leaves half of its bytes, as a real one does.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import safetensors
import safetensors.torch
import torch

_PART_BYTES = 64 * 1024


class FillingDisk:
    """Counts `writes`; from the one numbered `full_at` (from 1) on there is no room. None never fills up."""

    def __init__(self, folder: Path, full_at: int | None = None) -> None:
        self.folder = folder.resolve()
        self.full_at = full_at
        self.writes = 0
        self.full = False

    def make_room(self) -> None:
        """For all that is still to come."""
        self.full, self.full_at = False, None

    def holds(self, path: Any) -> bool:
        """Whether a path, or an open file by its number, lies on this disk."""
        place = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.path.realpath(path)
        return Path(place).is_relative_to(self.folder)

    def take(self, count: int) -> int:
        """How many of `count` bytes there is room for. Raises: OSError where there is none at all."""
        self.writes += 1
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.writes != self.full_at:
            return count
        self.full = True
        return self.take(count) if count < 2 else count // 2

    @contextmanager
    def spared(self) -> Iterator[None]:
        """What is written inside the block has room, and does not count."""
        before = self.full_at, self.writes
        self.full_at = None
        yield
        self.full_at, self.writes = before

    @contextmanager
    def mounted(self) -> Iterator[FillingDisk]:
        """Everything in this process that writes below the folder writes to this disk."""
        open_file = _opener(self, io.open)
        with ExitStack() as stack:
            for place, name, replacement in (
                (io, "open", open_file),
                (builtins, "open", open_file),
                (os, "write", _writer(self, os.write)),
                (os, "pwrite", _placer(self, os.pwrite)),
                (torch, "save", _torch_saver(self, torch.save, open_file)),
                (safetensors.torch, "serialize_file", _tensor_saver(safetensors.serialize, open_file)),
            ):
                stack.enter_context(patch.object(place, name, replacement))
            yield self


class _File(io.FileIO):
    """A file on the disk."""

    def __init__(self, disk: FillingDisk, path: Any, mode: str) -> None:
        super().__init__(path, mode)
        self._disk = disk

    def write(self, data: Any) -> int:
        return super().write(memoryview(data).cast("B")[: self._disk.take(memoryview(data).nbytes)])


def _opener(disk: FillingDisk, original: Any) -> Any:
    def open_file(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        if not set("wax+") & set(mode) or not disk.holds(file):
            return original(file, mode, buffering, *rest, **named)
        raw = _File(disk, file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        named.pop("closefd", None), named.pop("opener", None)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *rest, **named)

    return open_file


def _writer(disk: FillingDisk, original: Any) -> Any:
    def write(descriptor: int, data: Any) -> int:
        room = disk.take(len(data)) if disk.holds(descriptor) else len(data)
        return int(original(descriptor, bytes(data)[:room]))

    return write


def _placer(disk: FillingDisk, original: Any) -> Any:
    """What lies within a file already has its room."""

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        grows = offset + len(data) > os.fstat(descriptor).st_size
        room = disk.take(len(data)) if grows and disk.holds(descriptor) else len(data)
        return int(original(descriptor, bytes(data)[:room], offset))

    return pwrite


def _torch_saver(disk: FillingDisk, original: Any, open_file: Any) -> Any:
    def save(value: Any, target: Any, *rest: Any, **named: Any) -> None:
        if not isinstance(target, str | os.PathLike) or not disk.holds(target):
            original(value, target, *rest, **named)
            return
        content = io.BytesIO()
        original(value, content, *rest, **named)
        _write_parts(open_file, target, content.getvalue())

    return save


def _tensor_saver(serialize: Any, open_file: Any) -> Any:
    def save(tensors: Any, target: Any, metadata: Any = None) -> None:
        _write_parts(open_file, target, serialize(tensors, metadata))

    return save


def _write_parts(open_file: Any, target: Any, content: bytes) -> None:
    with open_file(target, "wb", 0) as file:
        while content:
            content = content[file.write(content[:_PART_BYTES]) :]
