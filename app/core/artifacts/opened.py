"""Files of an artifact, opened so that no link leads out of its folder, however late it was put there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from app.core.errors import AppError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe in a file's place must not block
_CHUNK_BYTES = 1 << 20


class FileGone(AppError):
    """A file of this artifact is missing from the data folder, or is another one now."""

    code = "file_gone"


@contextmanager
def open_listed(root: Path, listed: Mapping[str, Any]) -> Iterator[int]:
    """A descriptor of the file that is listed as {path, bytes}; no part of its path below `root` may be a link.

    Raises: FileGone where it is no plain file of that size.
    """
    try:
        descriptor = _open_beneath(root, PurePosixPath(listed["path"]))
    except (OSError, ValueError) as error:
        raise FileGone(f"{listed['path']} is missing from the data folder: {error}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != listed["bytes"]:
            raise FileGone(f"{listed['path']} is not the file of {listed['bytes']:,} bytes that was saved.")
        yield descriptor
    finally:
        os.close(descriptor)


def read_listed(root: Path, listed: Mapping[str, Any], start: int, stop: int) -> Iterator[bytes]:
    """The file's bytes from `start` to before `stop`, in pieces of at most a MiB. Raises: FileGone, also in between."""
    with open_listed(root, listed) as descriptor:
        while start < stop:
            piece = os.pread(descriptor, min(_CHUNK_BYTES, stop - start), start)
            if not piece:
                raise FileGone(f"{listed['path']} was cut short while it was read.")
            start += len(piece)
            yield piece


def _open_beneath(root: Path, relative: PurePosixPath) -> int:
    """Raises: OSError, also where a part is a link; ValueError for a path that is not below `root`."""
    if relative.is_absolute() or not relative.parts or ".." in relative.parts:
        raise ValueError("its path does not lie below the artifact's folder")
    folder = os.open(root, _FOLDER)
    try:
        for part in relative.parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(relative.parts[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)
