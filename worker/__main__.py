"""`python -m worker`: run the worker of one data folder until SIGTERM or Ctrl+C."""

from __future__ import annotations

import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

from app.core.damage import refuse_damage
from app.core.database import Database
from app.core.errors import AppError, WorkerAlreadyRunning
from app.core.first_run import register_demo
from app.core.jobs.queries import likely_model_path
from app.core.logs import set_up_logging
from app.core.paths import DataFolder
from app.core.secrets import remember_secrets
from app.core.settings import Settings
from worker.children import Children
from worker.gpu import Sampler
from worker.lock import lock_data_folder
from worker.loop import Worker
from worker.probe import Probe

logger = logging.getLogger("worker")

OF_DASHBOARD_FLAG = "--of-dashboard"  # `loradeck serve` started it

EXIT_FAILED = 1
EXIT_INVALID = 2
EXIT_ALREADY_RUNNING = 3  # said to the dashboard alone; for people it is a failure like any other


def main() -> int:
    """The exit code says whether starting it again can help."""
    os.umask(0o077)
    try:
        settings = Settings.load()
        set_up_logging(settings.log_level)
        work(settings)
    except AppError as error:
        logger.error("%s %s", error.message, error.advice or "")
        return _exit_code(error)
    return 0


def _exit_code(error: AppError) -> int:
    if not isinstance(error, WorkerAlreadyRunning):
        return EXIT_INVALID
    return EXIT_ALREADY_RUNNING if OF_DASHBOARD_FLAG in sys.argv else EXIT_FAILED


def work(settings: Settings) -> None:
    """Hold the data folder's lock and work until a signal.

    Raises: WorkerAlreadyRunning, DatabaseDamaged, DatabaseTooNew.
    """
    folder = DataFolder(settings.home).create()
    remember_secrets(folder)
    with lock_data_folder(folder, of_dashboard=OF_DASHBOARD_FLAG in sys.argv):
        database = Database(settings.effective_database_url)
        refuse_damage(database, folder)
        database.migrate(folder.backups)
        register_demo(database, folder)
        worker = build_worker(settings, database)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        worker.start()
        logger.info("the worker runs on %s", folder.home)
        worker.run()


def build_worker(settings: Settings, database: Database) -> Worker:
    """A worker as `python -m worker` runs it."""
    folder = DataFolder(settings.home)
    children = Children(
        keep_spare=settings.spare_child, log=_spare_log(folder), likely_model=partial(_likely_model, database)
    )
    probe = Probe(database, folder.home / "probe.log")
    return Worker(settings, database, children, Sampler(folder.home), probe)


def _likely_model(database: Database) -> Path | None:
    with database.read() as session:
        path = likely_model_path(session)
    return None if path is None else Path(path)


def _spare_log(folder: DataFolder) -> Path:
    path = folder.home / "spare.log"
    path.unlink(missing_ok=True)
    return path


if __name__ == "__main__":
    sys.exit(main())
