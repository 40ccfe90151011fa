"""Folders for files on their way in. Who fills one holds a lock on it, so that those of a killed process are known."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


class Staging:
    """A new folder below `uploads`, until it is closed."""

    def __init__(self, uploads: Path) -> None:
        with _locked(uploads, fcntl.LOCK_SH):  # nobody collects it before it is locked itself
            self.path = Path(tempfile.mkdtemp(dir=uploads))
            self._descriptor = _lock(self.path, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove it, and what is still in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def collect(uploads: Path) -> int:
    """Remove what was left by processes that were killed. Returns how many folders."""
    with _locked(uploads, fcntl.LOCK_EX):
        left = [path for path in uploads.iterdir() if path.is_dir() and _is_left(path)]
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
    if left:
        logger.info("removed %d uploads that never came to their end", len(left), extra={"action": "collect_uploads"})
    return len(left)


def _is_left(path: Path) -> bool:
    try:
        os.close(_lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = _lock(folder, how)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path, how: int) -> int:
    """A descriptor that holds the lock for as long as it is open. Raises: BlockingIOError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
