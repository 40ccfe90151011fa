"""What goes wrong without a kill: a disk without space, a database that somebody else holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.database import Database
from chaos.plan import Fault, Injection

OWN_DISK_BYTES = 4 * 1024**3  # a larger file system is somebody's disk, and is not filled up
_STEP_BYTES = 1 << 20
_PATIENCE_MILLISECONDS = 60_000  # on a busy machine the one that has the lock may be long


class NotInjected(Exception):
    """The fault cannot be brought about here."""


def inject(injection: Injection, home: Path, database: Database, wait: Callable[[float], None]) -> None:
    """Keep the fault up while `wait` waits. Raises: NotInjected."""
    block = {Fault.DISK_FULL: _full_disk(home), Fault.DATABASE_LOCKED: _locked(database)}[injection.fault]
    with block:
        wait(injection.seconds)


@contextmanager
def _full_disk(home: Path) -> Iterator[None]:
    """Every byte of the data folder's own file system is taken. Raises: NotInjected where it has none of its own."""
    disk = os.statvfs(home)
    if disk.f_blocks * disk.f_frsize > OWN_DISK_BYTES:
        raise NotInjected(f"{home} is not on a small file system of its own.")
    ballast = home / "chaos-ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            _fill(file.fileno())
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _fill(descriptor: int) -> None:
    size, step = 0, _STEP_BYTES
    while step:
        try:
            os.posix_fallocate(descriptor, size, step)
            size += step
        except OSError:  # no more of this size
            step //= 2


@contextmanager
def _locked(database: Database) -> Iterator[None]:
    """Another program holds the write lock."""
    with database.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql(f"PRAGMA busy_timeout={_PATIENCE_MILLISECONDS}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield
        connection.exec_driver_sql("ROLLBACK")
        connection.detach()  # its patience is this fault's alone
