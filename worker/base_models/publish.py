"""Folders that appear whole or not at all, and copies of them that share their blocks where the disk allows it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.artifacts.manifest import hash_file as hash_file
from app.core.paths import fsync_folder

_LOCK_POLL_SECONDS = 0.2
_NO_HARD_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES})


@contextmanager
def publish_folder(target: Path) -> Iterator[Path]:
    """Yield an empty sibling of `target`; it becomes `target` if the block ends well, and is removed if not.

    What lay at `target` stays until the new folder is complete, and goes when that is in its place. One writer per
    target at a time: callers hold a lock or own the name.
    """
    partial, old = (target.with_name(f".{target.name}.{state}") for state in ("partial", "old"))
    _put_back(old, target)
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
    _make_parents(target)
    partial.mkdir(mode=0o700)
    try:
        yield partial
        sync_folder(partial)
        _replace(target, partial, old)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def collect_leftovers(parent: Path) -> None:
    """Remove what processes that were killed left of folders directly below `parent`; nobody may be writing there.

    A folder that was about to be replaced, and has no successor yet, takes its place again.
    """
    for old in parent.glob(".*.old"):
        _put_back(old, old.with_name(old.name[1:].removesuffix(".old")))
    for leftover in (*parent.glob(".*.partial"), *parent.glob(".*.removed")):
        shutil.rmtree(leftover)


def _make_parents(target: Path) -> None:
    """A folder lasts no longer than its name in the one above it, so new names are brought to the disk, too."""
    missing = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for made in reversed(missing):
        fsync_folder(made.parent)


def _replace(target: Path, partial: Path, old: Path) -> None:
    """A folder cannot be renamed onto another, so for a moment the old one lies beside."""
    try:
        if target.exists():
            target.rename(old)
        partial.rename(target)
        fsync_folder(target.parent)
    finally:
        _put_back(old, target)


def _put_back(old: Path, target: Path) -> None:
    """Remove the old folder once a new one is in its place, else it takes its place again."""
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(target)


def sync_folder(folder: Path) -> None:
    """See all files and names below the folder onto the disk."""
    for file in files_of(folder):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        fsync_folder(path)


def files_of(folder: Path) -> list[Path]:
    """Every file under `folder`, in a stable order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def make_read_only(folder: Path) -> None:
    """Guard files that several data folders share by hard links against being written in place."""
    for file in files_of(folder):
        file.chmod(0o400)


def link_or_copy(source: Path, target: Path) -> None:
    """Fill the empty folder `target` with hard links to the files of `source`, or copies across filesystems."""
    for file in files_of(source):
        destination = target / file.relative_to(source)
        destination.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        link_or_copy_file(file.resolve(), destination)


def link_or_copy_file(source: Path, destination: Path) -> None:
    """Make `destination` a hard link to the file `source`, or a copy across filesystems."""
    try:
        os.link(source, destination)
    except OSError as error:
        if error.errno not in _NO_HARD_LINK:
            raise
        shutil.copyfile(source, destination)


@contextmanager
def hold_lock(path: Path, check_stop: Callable[[], None]) -> Iterator[None]:
    """Hold the file lock at `path` against other processes, calling `check_stop` (which may raise) while waiting."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while not _try_lock(descriptor):
            check_stop()
            time.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)  # which releases the lock


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
