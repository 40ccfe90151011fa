"""Make a restored database true of the data folder that it comes to."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2 as sqlite

from app.core.backup.snapshot import open_file
from app.core.events.types import EventKind
from app.core.paths import DataFolder

logger = logging.getLogger(__name__)

_NOT_THERE = "Its files are not in this data folder: they were not in the backup that was restored."
_TABLES = {"jobs": "job", "datasets": "dataset", "models": "base_model"}


def reconcile(database: Path, replaced: Path, folder: DataFolder, files: Container[str]) -> dict[str, list[str]]:
    """Models and datasets whose files are neither there nor in `files` become failed; ids that were given stay taken.

    Logins end.

    Returns the names of the former: {"models": […], "datasets": […]}.
    """
    with open_file(database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for parent, table in _TABLES.items():
            numbers = [int(path.name) for path in (folder.home / parent).iterdir() if path.name.isdigit()]
            _keep_ids_taken(connection, table, numbers)
        _skip_events_of(connection, replaced)
        _end_logins(connection)
        absent = {"models": _fail_models(connection), "datasets": _fail_datasets(connection, folder, files)}
        connection.execute("COMMIT")
    return absent


def _keep_ids_taken(connection: Any, table: str, numbers: Iterable[int]) -> int:
    """A folder that is newer than the backup must not become that of another job, which would take it for its own."""
    newest = max([_newest_id(connection, table), *numbers])
    connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, newest))
    return newest


def _newest_id(connection: Any, table: str) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return row[0] if row else 0


def _skip_events_of(connection: Any, replaced: Path) -> None:
    """Events go on behind those of the database that is replaced, and its readers are told to begin anew."""
    newest = 0
    if replaced.is_file():
        try:
            with open_file(replaced, "ro") as old:
                newest = _newest_id(old, "event")
        except sqlite.DatabaseError as error:
            logger.warning("ids of events may come twice, since %s cannot be read: %s", replaced, error)
    data = json.dumps({"through": _keep_ids_taken(connection, "event", [newest])})
    row = (EventKind.PRUNED.value, time.time(), data)
    connection.execute("INSERT INTO event (kind, time, data) VALUES (?, ?, ?)", row)


def _end_logins(connection: Any) -> None:
    """Those of the backup's time, which may have been ended since: everybody logs in again."""
    if _columns(connection, "login_session"):  # the first schemas had no accounts
        connection.execute("DELETE FROM login_session")


def _columns(connection: Any, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _fail_models(connection: Any) -> list[str]:
    """Those that were ready: an import that was queued makes its files itself."""
    ready = connection.execute("SELECT id, name, path FROM base_model WHERE status = 'ready'").fetchall()
    absent = [(key, name) for key, name, path in ready if not Path(path or "").is_dir()]
    for key, _ in absent:
        connection.execute("UPDATE base_model SET status = 'failed', error = ? WHERE id = ?", (_NOT_THERE, key))
    return [name for _, name in absent]


def _fail_datasets(connection: Any, folder: DataFolder, files: Container[str]) -> list[str]:
    """Those that were ready. In the first schema they had no state; a job on one without rows fails by itself."""
    if "status" not in _columns(connection, "dataset"):
        return []
    absent = [
        (key, name)
        for key, name in connection.execute("SELECT id, name FROM dataset WHERE status = 'ready'").fetchall()
        if f"datasets/{key}/rows.jsonl" not in files and not (folder.dataset(key) / "rows.jsonl").is_file()
    ]
    for key, _ in absent:
        connection.execute("UPDATE dataset SET status = 'failed', error = ? WHERE id = ?", (_NOT_THERE, key))
    return [name for _, name in absent]
