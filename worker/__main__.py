"""`python -m worker`: run the worker of one data folder until SIGTERM or Ctrl+C."""

from __future__ import annotations

import logging
import os
import signal
import sys

from app.core.database import Database
from app.core.errors import AppError, WorkerAlreadyRunning
from app.core.first_run import register_demo
from app.core.logs import set_up_logging
from app.core.paths import DataFolder
from app.core.settings import Settings
from worker.lock import lock_data_folder
from worker.loop import build_worker

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
    """Hold the data folder's lock and work until a signal. Raises: WorkerAlreadyRunning, DatabaseTooNew."""
    folder = DataFolder(settings.home).create()
    with lock_data_folder(folder, of_dashboard=OF_DASHBOARD_FLAG in sys.argv):
        database = Database(settings.effective_database_url)
        database.migrate(folder.backups)
        register_demo(database, folder)
        worker = build_worker(settings, database)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        worker.start()
        logger.info("the worker runs on %s", folder.home)
        worker.run()


if __name__ == "__main__":
    sys.exit(main())
