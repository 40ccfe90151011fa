"""`python -m chaos.no_room --at 200`: let the disk fill up at the k-th write of the database, for every k in turn.

Counted is what SQLite writes to its files while a job is submitted, claimed, supervised and settled by the worker's own
loop (the job computes next to nothing; what its process writes has a disk with room: `chaos.no_space` is for that).
The write that fills the disk is cut in half, and nothing can be written for a while. Meanwhile another connection must
find the file whole and readable. In the end the job is completed once, with the very rows of a run that nothing
disturbed, and SQLite finds no fault.

Prints one JSON line; exits 1 where one of them is broken. With more writes than `--at`, as many are taken, evenly.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlmodel import col, select

from app.core.database import Database
from app.core.events.models import Event
from app.core.jobs.models import Job
from app.core.jobs.status import ENDED
from app.core.jobs.submit import submit_values
from app.core.paths import DataFolder
from app.core.settings import Settings
from chaos import files, rows
from chaos.evidence import Evidence, Finding
from chaos.light_worker import CHILD_COMMAND
from chaos.preload import PreloadedDisk, run_preloaded
from chaos.sampling import evenly
from chaos.workload import prepare
from worker.children import Children
from worker.gpu import Sampler
from worker.loop import Worker
from worker.probe import Probe

T = TypeVar("T")

_SPEC: dict[str, Any] = {"base_model": "tiny", "dataset": "rows", "max_steps": 12, "save_steps": 4, "r": 4}
_FULL_SECONDS = 0.3
_DEADLINE_SECONDS = 60.0
_TWINS = 3  # how many writes there are depends on how fast the machine is: the fewest count
_POLL_SECONDS = 0.01
_PAGES_IN_WAL = 30  # so few that the database's own file is written to in mid-run, too
_CHECKS: tuple[Callable[[Evidence], Finding], ...] = (
    rows.jobs_complete,
    rows.attempts_are_in_order,
    rows.spools_are_taken_in,
    rows.steps_are_contiguous,
    rows.moves_are_allowed,
    rows.database_is_whole,
    files.folders_verify,
    files.nothing_is_left_half_done,
)


@dataclass(slots=True)
class Try:
    """One job whose database lies on a disk that fills up once."""

    home: Path
    disk: PreloadedDisk
    full_at: int = 0  # never
    writes: int = 0
    filled_by: str = ""
    refused: int = 0  # writes that somebody was told of; others were tried again without a word
    attempts: int = 0
    metrics: dict[tuple[str, int], float | None] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    _full_since: float | None = None

    def run(self, migrated: Path) -> None:
        """Submit a job, let a worker work on it, look at what has come of it."""
        settings = Settings(home=self.home)
        folder = DataFolder(self.home).create()
        shutil.copy(migrated, self.home / "loradeck.db")
        database = _open(settings)
        prepare(database, folder, light=True)
        self.disk.begin(database.path, self.full_at)
        job_id = self._insist(lambda: _submit(database))
        worker = self._insist(lambda: _start_worker(settings, database))
        loop = threading.Thread(target=worker.run)
        loop.start()
        self._wait(database, job_id)
        worker.stop()
        loop.join()
        database.engine.dispose()  # the last connection: SQLite moves what is left in the WAL
        self.writes, self.filled_by = self.disk.writes, self.disk.filled_by
        self.disk.begin(Path("/nowhere"), 0)
        self._judge(Evidence(folder, _open(settings), {job_id: "short"}, {}, {}), job_id)

    def _insist(self, write: Callable[[], T]) -> T:
        """What a user, or the dashboard that starts a worker, does: try again until there is room."""
        while True:
            try:
                return write()
            except OperationalError:
                self.refused += 1
                self._watch(Settings(home=self.home))
                time.sleep(_POLL_SECONDS)

    def _wait(self, database: Database, job_id: int) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while time.monotonic() < deadline:
            self._watch(Settings(home=self.home))
            with database.read() as session:
                if session.get_one(Job, job_id).status in ENDED and not self.disk.full:
                    return
            time.sleep(_POLL_SECONDS)
        self.broken.append("the job does not end")

    def _watch(self, settings: Settings) -> None:
        """While the disk is full: is all readable? After a while: make room."""
        if not self.disk.full:
            return
        if self._full_since is None:
            self._full_since = time.monotonic()
            self._look(_open(settings))
        if time.monotonic() - self._full_since > _FULL_SECONDS:
            self.disk.make_room()

    def _look(self, database: Database) -> None:
        """As the dashboard does: another connection."""
        try:
            with database.engine.connect() as connection:
                found = connection.exec_driver_sql("PRAGMA quick_check").scalars().all()
                connection.exec_driver_sql("SELECT count(*) FROM job").all()
            self.broken += [str(line) for line in found if line != "ok"]
        except OperationalError as error:
            self.broken.append(f"the database cannot be read while the disk is full: {error}")
        finally:
            database.engine.dispose()

    def _judge(self, evidence: Evidence, job_id: int) -> None:
        self.broken += [found for check in _CHECKS for found in check(evidence) if found is not None]
        self.metrics = evidence.metrics(job_id)
        self.attempts = sum(job.attempts for job in evidence.rows)
        with evidence.database.read() as session:
            told = session.exec(select(Event).where(Event.kind == "metric").order_by(col(Event.id))).all()
        steps = [each.step for each in told]
        if self.attempts == 1 and len(steps) != len(set(steps)):
            self.broken.append(f"metrics were told twice: {steps}")
        evidence.database.engine.dispose()


def _open(settings: Settings) -> Database:
    database = Database(settings.effective_database_url)
    event.listen(database.engine, "connect", _keep_wal_short)
    return database


def _keep_wal_short(connection: Any, _record: Any) -> None:
    connection.execute(f"PRAGMA wal_autocheckpoint={_PAGES_IN_WAL}")
    connection.execute("PRAGMA busy_timeout=5000")


def _submit(database: Database) -> int:
    with database.write() as session:
        return submit_values(session, _SPEC).key


def _start_worker(settings: Settings, database: Database) -> Worker:
    folder = DataFolder(settings.home)
    children = Children(keep_spare=False, log=folder.home / "spare.log", command=CHILD_COMMAND)
    probe = Probe(database, folder.home / "probe.log", ("true",))
    worker = Worker(settings, database, children, Sampler(folder.home), probe)
    worker.start()
    return worker


def sweep(home: Path, at: int) -> dict[str, Any]:
    """Try at most `at` of the writes; returns {writes, tried, filled_by, refused, attempts, broken}."""
    disk, migrated = PreloadedDisk(), home / "migrated" / "loradeck.db"
    migrated.parent.mkdir()
    database = Database(f"sqlite:///{migrated}")
    database.migrate(migrated.parent)
    database.engine.dispose()
    twins = [Try(home / f"twin-{number}", disk) for number in range(_TWINS)]
    with patch("worker.loop.RETRY_SECONDS", 0.05), patch("worker.readings.INTERVAL_SECONDS", 0.1):
        for twin in twins:
            twin.run(migrated)
        writes = min(twin.writes for twin in twins)
        tried = [_try(home, disk, migrated, twins[0], number) for number in evenly(writes, at)]
    return {
        "writes": writes,
        "tried": len(tried),
        "filled_by": dict(sorted(Counter(each.filled_by or "nothing" for each in tried).items())),
        "refused": sum(each.refused for each in tried),
        "attempts": sum(each.attempts for each in tried),
        "broken": [what for each in [*twins, *tried] for what in each.broken],
    }


def _try(home: Path, disk: PreloadedDisk, migrated: Path, twin: Try, number: int) -> Try:
    each = Try(home / f"write-{number}", disk, number)
    each.run(migrated)
    if each.metrics != twin.metrics:
        each.broken.append("its metrics are not those of the run that nothing disturbed")
    each.broken = [f"write {number}: {what}" for what in each.broken]
    if not each.broken:
        shutil.rmtree(each.home)
    return each


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=int, default=200, help="how many writes to try at most")
    parser.add_argument("--preloaded", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.preloaded is None:
        with tempfile.TemporaryDirectory(prefix="loradeck-no-room-") as home:
            return run_preloaded(Path(home), "chaos.no_room", ["--at", str(asked.at), "--preloaded", home])
    logging.disable(logging.CRITICAL)
    result = sweep(asked.preloaded, asked.at)
    print(json.dumps(result), flush=True)
    return 1 if result["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
