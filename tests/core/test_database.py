"""The database keeps what was committed: pragmas, transactions, migrations, backups."""

from __future__ import annotations

import logging
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2 as sqlite
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

import app.core.tables  # noqa: F401 - fills the metadata
from app.core import database as database_module
from app.core.artifacts.models import Artifact
from app.core.chats.models import ChatTurn
from app.core.database import Database, wal_is_safe
from app.core.datasets.models import Dataset
from app.core.errors import DatabaseTooNew
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind, Lane
from app.core.metrics.store import put_metrics
from app.core.paths import DataFolder, bundled
from app.core.table import Table

NEWEST = max(path.name[:4] for path in (bundled("migrations") / "versions").glob("[0-9]*.py"))
NEXT = f"{int(NEWEST) + 1:04d}"
NEXT_MIGRATION = """
from alembic import op
import sqlalchemy as sa

revision, down_revision, branch_labels, depends_on = "{next}", "{newest}", None, None

def upgrade():
    op.create_table("extra", sa.Column("id", sa.Integer(), primary_key=True))
    {more}
"""

_A_JOB_OF_THE_FIRST_VERSION = """
INSERT INTO job (id, name, kind, status, priority, position, spec, dataset_id, cancel_requested, save_requested, step,
                 summary, attempts, fence, created_at)
VALUES (1, 'j', 'train', 'queued', 0, 0, '{}', 7, 0, 0, 0, '{}', 0, 0, 1.0)
"""


def _pragmas(database: Database) -> dict[str, object]:
    with database.engine.connect() as connection:
        names = ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names}


def _revision(database: Database) -> str:
    with database.engine.connect() as connection:
        return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


def _tables(database: Database) -> set[str]:
    with database.engine.connect() as connection:
        return set(connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars())


def _migrate_to(database: Database, revision: str, migrate: Callable[[Config, str], None] = command.upgrade) -> None:
    config = Config()
    config.set_main_option("script_location", str(bundled("migrations")))
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        migrate(config, revision)
        connection.commit()


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Make this code believe that it is the next version, with one more migration."""

    def install(more: str = "pass") -> None:
        shutil.copytree(bundled("migrations"), tmp_path / "migrations", dirs_exist_ok=True)
        migration = NEXT_MIGRATION.format(more=more, next=NEXT, newest=NEWEST)
        (tmp_path / "migrations" / "versions" / f"{NEXT}_extra.py").write_text(migration)
        monkeypatch.setattr(database_module, "bundled", lambda name: tmp_path / name)

    return install


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 3), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 53, 4), True),
        ((4, 0, 0), True),
    ],
)
def test_wal_is_safe_only_where_the_wal_reset_bug_is_fixed(version: tuple[int, ...], safe: bool) -> None:
    assert wal_is_safe(version) is safe


def test_every_connection_has_its_pragmas(database: Database) -> None:
    journal = "wal" if wal_is_safe(sqlite.sqlite_version_info) else "truncate"
    expected = {"journal_mode": journal, "foreign_keys": 1, "busy_timeout": 5000, "synchronous": 2}
    with database.engine.connect(), database.engine.connect():  # a third connection is opened, not reused
        assert _pragmas(database) == expected


def test_an_affected_sqlite_keeps_a_rollback_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "wal_is_safe", lambda _version: False)
    database = Database(f"sqlite:///{tmp_path / 'old.db'}")
    assert _pragmas(database)["journal_mode"] == "truncate"
    database.engine.dispose()


# Indexes over an expression are compared by the next test.
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_migrated_schema_equals_the_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "render_as_batch": True})
        assert compare_metadata(context, Table.metadata) == []


def test_tables_are_created_as_the_metadata_says(database: Database, tmp_path: Path) -> None:
    """What alembic does not compare: AUTOINCREMENT, WITHOUT ROWID and the checks of enum columns.

    A column that a later migration added has a default, which SQLite asks for; constraints may stand in another order.
    """
    bare = Database(f"sqlite:///{tmp_path / 'bare.db'}")
    Table.metadata.create_all(bare.engine)

    def statements(database: Database) -> dict[str, list[str]]:
        query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'alembic_version'"
        with database.engine.connect() as connection:
            found = {name: re.sub(r"DEFAULT '[^']*'", "", sql) for name, sql in connection.execute(text(query))}
        return {name: sorted(re.findall(r"\w+", sql)) for name, sql in found.items()}

    migrated, made = statements(database), statements(bare)
    bare.engine.dispose()
    assert migrated.keys() == made.keys()
    for name, words in made.items():
        assert migrated[name] == words, name


def test_what_the_first_version_stored_is_there_after_the_upgrade(tmp_path: Path) -> None:
    """Jobs point at datasets, so the table must not be lost on the way; its rows become files of messages."""
    database = Database(f"sqlite:///{tmp_path / 'first.db'}")
    _migrate_to(database, "0001")
    with database.engine.begin() as connection:
        connection.execute(text("INSERT INTO dataset VALUES (7, 'kept', 'alpaca', 3, 9, 'a', 'b', 1.0)"))
        connection.execute(text(_A_JOB_OF_THE_FIRST_VERSION))
    database.migrate(tmp_path)
    with database.read() as session:
        dataset = session.get_one(Dataset, session.get_one(Job, 1).dataset_id)
        assert (dataset.name, dataset.status, dataset.kind, dataset.source) == ("kept", "ready", "messages", {})
    database.engine.dispose()


def test_checks_and_previews_go_with_the_downgrade_and_the_rest_stays(database: Database) -> None:
    """The kinds that the table takes are those of its version; what refers to jobs, and jobs to each other, holds."""
    with database.write() as session:
        train = queue.enqueue(session, Job(name="t", kind=JobKind.TRAIN, created_at=0))
        queue.enqueue(session, Job(name="m", kind=JobKind.MERGE, source_job_id=train.id, created_at=0))
        queue.enqueue(session, Job(name="c", kind=JobKind.CHECK, created_at=0))
        queue.claim_next(session, Lane.CHECK)
        queue.claim_next(session, Lane.GPU)
    _migrate_to(database, "0002", command.downgrade)
    assert _kinds(database) == [("merge",), ("train",)]
    with pytest.raises(IntegrityError, match="ck_job_kind"):
        _set_kind(database, "preview")
    _migrate_to(database, "0003")
    _set_kind(database, "preview")
    with pytest.raises(IntegrityError, match="ck_job_kind"):
        _set_kind(database, "dance")
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT job_id FROM attempt")).all() == [(1,)]
        assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
        assert connection.execute(text("PRAGMA integrity_check")).all() == [("ok",)]


def test_exports_and_adapters_from_elsewhere_go_with_the_downgrade_and_the_rest_stays(database: Database) -> None:
    """With all that was made from such an adapter: its merges and chats, and their rows elsewhere."""
    with database.write() as session:
        train = queue.enqueue(session, Job(name="t", kind=JobKind.TRAIN, created_at=0))
        adapter = queue.enqueue(session, Job(name="a", kind=JobKind.ADAPTER, created_at=0))
        for source in (train, adapter):
            for kind in (JobKind.MERGE, JobKind.PLAYGROUND, JobKind.EXPORT):
                job = queue.enqueue(session, Job(name=kind, kind=kind, source_job_id=source.id, created_at=0))
                session.add(Artifact(job_id=job.key, kind="x", path="x", bytes=1, created_at=0))
                session.add(ChatTurn(job_id=job.key, prompt="why?", asked_at=0))
                put_metrics(session, job.key, 1, 0.0, {"loss": 1.0})
        for lane in Lane:
            while queue.claim_next(session, lane) is not None:
                pass
    _migrate_to(database, "0005", command.downgrade)
    kept = [("merge", 1), ("playground", 1), ("train", None)]
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT kind, source_job_id FROM job ORDER BY kind")).all() == kept
        for table in ("artifact", "chat_turn", "metric", "attempt", "event"):
            jobs = connection.execute(text(f"SELECT DISTINCT job_id FROM {table} ORDER BY job_id")).all()
            assert jobs == [(1,)] * (table in ("attempt", "event")) + [(3,), (4,)], table
        assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
        assert connection.execute(text("PRAGMA integrity_check")).all() == [("ok",)]
    with pytest.raises(IntegrityError, match="ck_job_kind"):
        _set_kind(database, "export")
    _migrate_to(database, "0006")
    _set_kind(database, "export")


def _set_kind(database: Database, kind: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE job SET kind = :kind WHERE id = 1"), {"kind": kind})


def _kinds(database: Database) -> Sequence[Any]:
    with database.engine.connect() as connection:
        return connection.execute(text("SELECT kind FROM job ORDER BY kind")).all()


def test_database_is_readable_by_its_owner_only(database: Database) -> None:
    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600


def test_migrating_again_changes_nothing_and_backs_nothing_up(database: Database, folder: DataFolder) -> None:
    database.migrate(folder.backups)
    assert list(folder.backups.iterdir()) == []


def test_an_older_database_is_backed_up_before_its_upgrade(
    database: Database, folder: DataFolder, next_version: Callable[[], None]
) -> None:
    with database.write() as session:
        log.append(session, EventKind.LOG, {"lines": ["kept"]})
    next_version()
    database.migrate(folder.backups)
    assert _revision(database) == NEXT
    assert "extra" in _tables(database)
    (backup,) = folder.backups.iterdir()
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    old = Database(f"sqlite:///{backup}")
    assert _revision(old) == NEWEST
    with old.read() as session:
        assert [event.data for event in log.read_after(session, 0)] == [{"lines": ["kept"]}]
    old.engine.dispose()


def test_web_and_worker_may_upgrade_in_the_same_second(
    database: Database, folder: DataFolder, next_version: Callable[[], None]
) -> None:
    next_version()
    ready, failures = threading.Barrier(2), []

    def start() -> None:
        own = Database(str(database.engine.url))
        ready.wait()
        try:
            own.migrate(folder.backups)
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            failures.append(error)
        own.engine.dispose()

    _in_threads(start, start)
    assert failures == []
    assert _revision(database) == NEXT


def test_a_failed_migration_leaves_the_older_schema_whole(
    database: Database, folder: DataFolder, next_version: Callable[[str], None]
) -> None:
    next_version("op.execute('SELECT * FROM no_such_table')")
    with pytest.raises(OperationalError):
        database.migrate(folder.backups)
    assert _revision(database) == NEWEST
    assert "extra" not in _tables(database)
    assert len(list(folder.backups.iterdir())) == 1


def test_a_newer_database_is_refused_untouched(
    database: Database, folder: DataFolder, next_version: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    next_version()
    database.migrate(folder.backups)
    monkeypatch.undo()
    before = len(list(folder.backups.iterdir()))
    with pytest.raises(DatabaseTooNew, match=f"has schema {NEXT}; this version knows {NEWEST}") as caught:
        database.migrate(folder.backups)
    assert "restore a backup" in str(caught.value.advice)
    assert _revision(database) == NEXT
    assert len(list(folder.backups.iterdir())) == before


def test_a_failed_write_changes_nothing(database: Database) -> None:
    def fail_at_the_second() -> None:
        with database.write() as session:
            log.append(session, EventKind.LOG, {"lines": ["one"]})
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_at_the_second()
    with database.read() as session:
        assert log.latest_id(session) == 0


def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(Job(name="x", kind=JobKind.TRAIN, base_model_id=99, created_at=0))


def test_enum_columns_hold_values_and_refuse_others(database: Database) -> None:
    with database.write() as session:
        session.add(Job(name="x", kind=JobKind.TRAIN, created_at=0))
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT kind, status FROM job")).one() == ("train", "queued")
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(text("UPDATE job SET status = 'QUEUED'"))


def test_a_second_writer_waits_for_the_first(database: Database) -> None:
    """Read, then write: without the lock from the first statement on, one of the two would be lost."""
    inside = threading.Event()

    def add(pause_seconds: float) -> None:
        with database.write() as session:
            last = log.latest_id(session)
            inside.set()
            time.sleep(pause_seconds)
            log.append(session, EventKind.LOG, {"seen": last})

    first = threading.Thread(target=add, args=(0.3,))
    first.start()
    inside.wait()
    add(0.0)
    first.join()
    with database.read() as session:
        assert [event.data["seen"] for event in log.read_after(session, 0)] == [0, 1]


def test_a_reader_sees_one_snapshot_while_others_write(database: Database) -> None:
    with database.read() as reader:
        assert log.latest_id(reader) == 0
        with database.write() as writer:
            log.append(writer, EventKind.LOG, {"lines": []})
        assert log.latest_id(reader) == 0
    with database.read() as reader:
        assert log.latest_id(reader) == 1


def test_the_upgrade_is_logged_with_its_backup(
    database: Database, folder: DataFolder, next_version: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    next_version()
    with caplog.at_level(logging.INFO, logger="app.core.database"):
        database.migrate(folder.backups)
    (backup,) = folder.backups.iterdir()
    assert str(backup) in caplog.text


def _in_threads(*targets: Callable[[], None]) -> None:
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
