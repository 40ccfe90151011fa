"""A database that is damaged or lost is found at the start, said in words, and never replaced by an empty one."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pysqlite3.dbapi2 as sqlite

from app.core.backup.offer import offer_restore
from app.core.backup.snapshot import find_fault, read_revision
from app.core.database import Database
from app.core.errors import DatabaseDamaged
from app.core.paths import DataFolder

logger = logging.getLogger(__name__)

_CHECKED_AT_ONCE_BYTES = 256 * 1024**2  # about a second


def open_checked(url: str, folder: DataFolder) -> Database:
    """The database, migrated. A damaged one is left as it is, and refuses every session. Raises: DatabaseTooNew."""
    database = Database(url)
    try:
        refuse_damage(database, folder)
        database.migrate(folder.backups)
    except DatabaseDamaged as error:
        logger.error("%s %s", error.message, error.advice, extra={"action": "check_database"})
        database.damage = error
    return database


def refuse_damage(database: Database, folder: DataFolder, *, thorough: bool = False) -> None:
    """Look at the file before anything is written to it. Raises: DatabaseDamaged.

    Unless `thorough`, a large file that was closed properly is checked beside the work: quick_check takes two to four
    seconds for a GB.
    """
    path = database.path
    if folder.restoring.exists():
        raise DatabaseDamaged(
            f"A restore into {folder.home} did not come to its end.",
            advice="Run the same `loradeck restore FILE --force` again.",
        )
    numbered = len(folder.numbered())  # looked at before the schema, which another process may be making
    there = path.exists() and path.stat().st_size > 0
    if there and not thorough and _is_costly(path):
        threading.Thread(target=_check_later, args=(database,), name="database check", daemon=True).start()
    elif there:
        _refuse_fault(path)
    if numbered and not (there and _has_schema(path)):
        raise DatabaseDamaged(
            f"{path} is {'empty' if path.exists() else 'missing'}, but {folder.home} holds {numbered} folders of jobs, "
            "datasets and models.",
            advice=f"{offer_restore(path)} To start anew instead, set LORADECK_HOME to another folder.",
        )


def _is_costly(path: Path) -> bool:
    """Too large to be waited for, and closed by its last user: a WAL that is left says that it was not."""
    wal = path.with_name(f"{path.name}-wal")
    return path.stat().st_size > _CHECKED_AT_ONCE_BYTES and not (wal.exists() and wal.stat().st_size > 0)


def _refuse_fault(path: Path) -> None:
    fault = find_fault(path)
    if fault is not None:
        raise DatabaseDamaged(f"The database {path} is damaged: {fault}", advice=offer_restore(path))


def _has_schema(path: Path) -> bool:
    try:
        return read_revision(path) is not None
    except sqlite.OperationalError:
        raise
    except sqlite.DatabaseError as error:
        raise DatabaseDamaged(f"The database {path} is damaged: {error}", advice=offer_restore(path)) from error


def _check_later(database: Database) -> None:
    try:
        _refuse_fault(database.path)
    except DatabaseDamaged as error:
        logger.error("%s %s", error.message, error.advice, extra={"action": "check_database"})
        database.damage = error
    except sqlite.OperationalError as error:
        logger.warning("the database could not be checked: %s", error, extra={"action": "check_database"})
