"""Learn of changes below a folder as they happen (Linux's inotify), so that a kill can hit a window of milliseconds."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_MODIFY, _MOVED_TO, _CREATE, _IS_FOLDER = 0x2, 0x80, 0x100, 0x40000000
_NONBLOCK = 0o4000
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_BUFFER_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Change:
    """A name that appeared (`new`, by creation or by a rename) or a file that was written to."""

    path: Path
    new: bool


class TreeWatch:
    """Changes below some folders and below those that are made in them meanwhile. A context manager.

    In the folder `flat` those that are there already are left out; new ones count.
    """

    def __init__(self, roots: Iterable[Path], flat: Path) -> None:
        self._descriptor = _checked(_libc.inotify_init1(_NONBLOCK))
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self._folders: dict[int, Path] = {}
        self._watch(flat)
        for root in roots:
            list(self._add(root))  # what is there already is no change

    def __enter__(self) -> TreeWatch:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._descriptor)

    def wait(self, seconds: float) -> list[Change]:
        """What has changed since the last call, waiting for so long at most where that is nothing yet."""
        if not self._poll.poll(1000 * seconds):
            return []
        return list(self._read())

    def _read(self) -> Iterator[Change]:
        buffer, place = os.read(self._descriptor, _BUFFER_BYTES), 0
        while place < len(buffer):
            watch, mask, _cookie, length = _HEADER.unpack_from(buffer, place)
            place += _HEADER.size + length
            folder = self._folders.get(watch)
            if folder is None or not length:
                continue
            path = folder / buffer[place - length : place].rstrip(b"\0").decode()
            yield Change(path, bool(mask & (_CREATE | _MOVED_TO)))
            if mask & _IS_FOLDER:
                yield from self._add(path)

    def _add(self, folder: Path) -> Iterator[Change]:
        """Watch a folder and those in it; yields what is in it already, since that may have come before the watch."""
        with suppress(FileNotFoundError):
            self._watch(folder)
            for entry in os.scandir(folder):
                yield Change(Path(entry.path), new=True)
                if entry.is_dir(follow_symlinks=False):
                    yield from self._add(Path(entry.path))

    def _watch(self, folder: Path) -> None:
        mask = ctypes.c_uint32(_MODIFY | _MOVED_TO | _CREATE)
        self._folders[_checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask))] = folder


def _checked(result: int) -> int:
    """Raises: OSError as the C library's errno says."""
    if result >= 0:
        return result
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))
