"""A migrated database by copying one: the migrations themselves are tested in test_database.py."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.database import Database
from app.core.paths import DataFolder
from app.core.settings import Settings


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database file of this version's schema."""
    home = tmp_path_factory.mktemp("migrated")
    database = Database(f"sqlite:///{home / 'loradeck.db'}")
    database.migrate(home)
    database.engine.dispose()
    return home / "loradeck.db"


@pytest.fixture
def database(settings: Settings, folder: DataFolder, migrated_file: Path) -> Iterator[Database]:
    """A migrated, empty database in the data folder."""
    shutil.copy(migrated_file, folder.home / "loradeck.db")
    database = Database(settings.effective_database_url)
    yield database
    database.engine.dispose()
