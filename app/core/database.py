"""The SQLite database: engine, pragmas per connection, read and write sessions, migrations at start."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2 as sqlite
from sqlalchemy import Engine, event, text
from sqlalchemy.engine import Connection, ExceptionContext
from sqlmodel import Session, create_engine

from app.core.backup.offer import offer_restore
from app.core.errors import DatabaseDamaged, DatabaseTooNew
from app.core.paths import bundled, fsync_folder

logger = logging.getLogger(__name__)

# WAL is safe with two writing processes only where SQLite's WAL-reset bug is fixed (sqlite.org/wal.html).
_WAL_FIXED = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
_DAMAGE_CODES = frozenset({sqlite.SQLITE_CORRUPT, sqlite.SQLITE_NOTADB})


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """Whether this SQLite version may use WAL with several processes."""
    return version >= _WAL_FIXED[0] or any(version[:2] == fixed[:2] and version >= fixed for fixed in _WAL_FIXED)


class Database:
    """Short sessions on one SQLite file. Never hold one open across a wait."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = create_engine(url, module=sqlite)
        self.damage: DatabaseDamaged | None = None  # once it is known, no session is given any more
        self._writing = self.engine.execution_options(immediate=True)
        event.listen(self.engine, "connect", _on_connect)
        event.listen(self.engine, "begin", _on_begin)
        event.listen(self.engine, "handle_error", self._on_error)

    @property
    def path(self) -> Path:
        """The database file."""
        return Path(self.engine.url.database or "")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one snapshot. Raises: DatabaseDamaged."""
        self._refuse_damage()
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that holds the write lock from its first statement; commits at the end, or changes nothing.

        Raises: DatabaseDamaged.
        """
        self._refuse_damage()
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self, backups: Path) -> None:
        """Bring the schema to this version's; back up an older file first. Raises: DatabaseTooNew."""
        with self.engine.connect() as connection:
            current = _revision(connection)
        known = known_revisions()
        if current == known[-1]:
            return
        if current is not None and current not in known:
            raise DatabaseTooNew(
                f"{self.path} has schema {current}; this version knows {known[-1]}.",
                advice="Start the newer version again, or restore a backup of this version.",
            )
        if current is not None:
            moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            # Web and worker may come here in the same second, and VACUUM INTO takes no existing file.
            self._back_up(backups / f"before-{known[-1]}-{moment}-{secrets.token_hex(4)}.db")
        self._upgrade()

    def _refuse_damage(self) -> None:
        if self.damage is not None:
            raise DatabaseDamaged(self.damage.message, advice=self.damage.advice)

    def _on_error(self, context: ExceptionContext) -> None:
        """Damage that is met by the way ends all use, where going on could make it worse."""
        if getattr(context.original_exception, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE_CODES:
            return
        message = f"The database {self.path} is damaged: {context.original_exception}"
        self.damage = DatabaseDamaged(message, advice=offer_restore(self.path))
        logger.error("%s %s", self.damage.message, self.damage.advice, extra={"action": "find_damage"})
        self._refuse_damage()

    def _back_up(self, target: Path) -> None:
        """A copy under its name is whole: it is brought to the disk under another one."""
        partial = target.with_name(f".{target.name}.partial")
        with self.engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")  # VACUUM runs outside a transaction only
            connection.exec_driver_sql("VACUUM INTO ?", (str(partial),))
        partial.chmod(0o600)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(target)
        fsync_folder(target.parent)
        logger.info("backed up the database to %s", target, extra={"action": "backup"})

    def _upgrade(self) -> None:
        from alembic import command  # imported here: it costs 0.2 s, and most starts migrate nothing
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(bundled("migrations")))
        with self._writing.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        self.path.chmod(0o600)


def known_revisions() -> list[str]:
    """This version's schemas, oldest first."""
    return sorted(path.name.split("_")[0] for path in (bundled("migrations") / "versions").glob("[0-9]*.py"))


def _revision(connection: Connection) -> str | None:
    exists = connection.execute(text("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")).first()
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first() if exists else None
    return str(row[0]) if row else None


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by `_on_begin` alone
    journal = "WAL" if wal_is_safe(sqlite.sqlite_version_info) else "TRUNCATE"
    for pragma in ("busy_timeout=5000", f"journal_mode={journal}", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
