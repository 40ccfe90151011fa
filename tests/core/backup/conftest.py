"""A data folder with something of everything that a backup may hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.artifacts.manifest import hash_file
from app.core.database import Database


@pytest.fixture
def count() -> Callable[[Database], dict[str, int]]:
    """Rows of each table, by SQL of the test's own."""

    def count(database: Database) -> dict[str, int]:
        with database.engine.connect() as connection:
            names = connection.exec_driver_sql(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            ).scalars()
            return {n: connection.exec_driver_sql(f"SELECT count(*) FROM {n}").scalar_one() for n in list(names)}

    return count


@pytest.fixture
def hashes() -> Callable[[Path], dict[str, str]]:
    """SHA-256 of every file below a folder's jobs and datasets."""

    def hashes(home: Path) -> dict[str, Any]:
        files = (path for part in ("jobs", "datasets") for path in (home / part).rglob("*") if path.is_file())
        return {str(path.relative_to(home)): hash_file(path) for path in files}

    return hashes
