"""A migration that is killed leaves a database that the old version starts on; so does the copy made before it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.core.backup.restore import restore_backup
from app.core.damage import open_checked
from app.core.database import Database, known_revisions
from app.core.errors import DatabaseTooNew
from app.core.events import log
from app.core.events.types import EventKind
from app.core.paths import DataFolder, bundled
from app.core.settings import Settings
from tests.live_server import environment_for

_NEXT = """
import os, signal
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{next}", "{newest}", None, None

def upgrade():
    kill("first")
    op.create_table("extra", sa.Column("id", sa.Integer(), primary_key=True))
    kill("table")
    with op.batch_alter_table("event") as batch:
        batch.add_column(sa.Column("more", sa.Integer(), nullable=True))
        batch.alter_column("kind", nullable=True)  # so that the table is copied
    kill("copied")
    op.execute("DELETE FROM event")
    kill("emptied")

def kill(point):
    if os.environ["KILL_AT"] == point:
        os.kill(os.getpid(), signal.SIGKILL)
"""
_UPGRADE = """
import os, signal, sys
from pathlib import Path
from app.core import database
from app.core.database import Database

database.bundled = lambda name: Path(sys.argv[2]) / name
if os.environ["KILL_AT"] == "backup":
    database.os.fsync = lambda _descriptor: os.kill(os.getpid(), signal.SIGKILL)
Database(sys.argv[1]).migrate(Path(sys.argv[3]))
"""


@pytest.fixture
def kept(database: Database) -> Database:
    """A database with content, so that something can be lost; closed."""
    with database.write() as session:
        for number in range(500):
            log.append(session, EventKind.LOG, {"lines": [str(number)] * 20})
    database.engine.dispose()
    return database


def upgrade(database: Database, folder: DataFolder, root: Path, kill_at: str) -> int:
    """Start the next version, which is killed at a point; returns its exit code."""
    shutil.copytree(bundled("migrations"), root / "migrations")
    newest = known_revisions()[-1]
    migration = root / "migrations" / "versions" / f"{int(newest) + 1:04d}_next.py"
    migration.write_text(_NEXT.format(next=migration.name[:4], newest=newest))
    command = [sys.executable, "-c", _UPGRADE, str(database.engine.url), str(root), str(folder.backups)]
    environment = {**environment_for(folder.home), "KILL_AT": kill_at}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode in (0, -signal.SIGKILL), run.stderr
    return run.returncode


def lines(database: Database) -> Sequence[str]:
    with database.read() as session:
        return [event.data["lines"][0] for event in log.read_after(session, 0, limit=1000) if event.kind == "log"]


@pytest.mark.parametrize("kill_at", ["backup", "first", "table", "copied", "emptied"])
def test_the_old_version_starts_after_a_kill_in_mid_migration(
    kept: Database, settings: Settings, folder: DataFolder, tmp_path: Path, kill_at: str
) -> None:
    assert upgrade(kept, folder, tmp_path / "next", kill_at) == -signal.SIGKILL
    old_version = open_checked(settings.effective_database_url, folder)
    assert old_version.damage is None
    assert lines(old_version) == [str(number) for number in range(500)]
    with old_version.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").scalar_one() == 0
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    old_version.engine.dispose()
    copies = list(folder.backups.glob("*.db"))
    assert len(copies) == (0 if kill_at == "backup" else 1)  # one that is not whole has no such name


@pytest.mark.parametrize("kill_at", ["copied", "never"])
def test_the_old_version_starts_from_the_backup_that_the_migration_made(
    kept: Database, settings: Settings, folder: DataFolder, tmp_path: Path, kill_at: str
) -> None:
    """Also where the upgrade came to its end, which left a schema that the old version does not know."""
    code = upgrade(kept, folder, tmp_path / "next", kill_at)
    if code == 0:
        with pytest.raises(DatabaseTooNew) as caught:
            open_checked(settings.effective_database_url, folder)
        assert "restore a backup" in str(caught.value.advice)
    (copy,) = folder.backups.glob("*.db")
    restore_backup(kept, folder, copy, force=True)
    old_version = open_checked(settings.effective_database_url, folder)
    assert lines(old_version) == [str(number) for number in range(500)]
    old_version.engine.dispose()
