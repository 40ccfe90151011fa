"""Free disk space: looked at before much is written, and told as such where it runs out in mid-write."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from app.core.errors import JobError

_SPARE_BYTES = 64 * 1024**2  # left free for the database and the logs
_START_BYTES = 4 * 1024**2
_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
_TEXTS = ("No space left on device", "Disk quota exceeded")  # Rust libraries pass on the system's words alone
_TORCH_TEXT = "inline_container.cc"  # and torch's writer not even these: it tells where it failed, not why
_ADVICE = "Delete old jobs or models, or move LORADECK_HOME to a larger disk, then run the job again."


class DiskFull(JobError):
    """Disk full: there is not enough free disk space."""

    code: ClassVar[str] = "disk_full"


def check_free_space(target: Path, needed_bytes: int) -> None:
    """Raises: DiskFull where `needed_bytes` do not fit beside what is to stay free."""
    if _free_bytes(target) < needed_bytes + _SPARE_BYTES:
        raise _describe(target, needed_bytes)


def can_start(folder: Path) -> bool:
    """Whether there is room for what a process writes before it can say that there is none: spool, note and log."""
    return shutil.disk_usage(folder).free >= _START_BYTES


@contextmanager
def telling_full_disk(target: Path, needed_bytes: int) -> Iterator[None]:
    """What fails inside for want of disk space fails as DiskFull, whatever the library that wrote makes of it."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error) or (_TORCH_TEXT in str(error) and _free_bytes(target) < _SPARE_BYTES):
            raise _describe(target, needed_bytes) from error
        raise


def describe_full_disk(error: BaseException) -> DiskFull:
    """The error of a write that nobody has asked room for, by our name."""
    return DiskFull(f"Disk full: {error}.", advice=_ADVICE)


def is_disk_full(error: BaseException) -> bool:
    """Whether the error says that a disk is full, or that a quota is used up."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _ERRNOS
    return any(text in str(error) for text in _TEXTS)


def _describe(target: Path, needed_bytes: int) -> DiskFull:
    needed, free = _mib(needed_bytes + _SPARE_BYTES), _mib(_free_bytes(target))
    message = f"Disk full: {target.name} needs {needed} of free disk space; {_place(target)} has {free}."
    return DiskFull(message, advice=_ADVICE)


def _free_bytes(target: Path) -> int:
    return shutil.disk_usage(_place(target)).free


def _place(target: Path) -> Path:
    """The nearest folder above `target` that is there."""
    return next(parent for parent in target.parents if parent.is_dir())


def _mib(count: int) -> str:
    return f"{count / 1024**2:,.0f} MiB"
