"""Copies of the database, taken while others write to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pysqlite3.dbapi2 as sqlite

_STEP_PAGES = 1000


@contextmanager
def open_file(path: Path, mode: str = "rw") -> Iterator[Any]:
    """A connection to a database file that is there; transactions are begun by hand. Mode `ro` leaves all as it is."""
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
    with closing(sqlite.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA busy_timeout=5000")
        yield connection


def copy_database(source: Path, target: Path) -> None:
    """One snapshot of the database, in steps of a few MB that hold nobody up.

    The read transaction is what makes it end: without it SQLite begins anew at each write of another process.
    """
    with open_file(source) as connection, closing(sqlite.connect(str(target))) as copy:
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        connection.backup(copy, pages=_STEP_PAGES)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a WAL beside it


def find_fault(path: Path) -> str | None:
    """What SQLite's quick_check finds wrong with a file, in its words; None for a sound one.

    Raises: sqlite.OperationalError where the file cannot be opened, or is locked.
    """
    try:
        with open_file(path) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    except sqlite.OperationalError:
        raise
    except sqlite.DatabaseError as error:  # not a database, or too damaged to be read at all
        return str(error)
    return None if found == ["ok"] else "; ".join(found)


def count_rows(path: Path) -> dict[str, int]:
    """Rows of every table."""
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    with open_file(path) as connection:
        names = [name for (name,) in connection.execute(tables).fetchall()]
        return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}


def read_revision(path: Path) -> str | None:
    """The schema's revision, or None where there is no schema of ours."""
    with open_file(path) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None
