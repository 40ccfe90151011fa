"""`python -m worker`: run the worker of one data folder until SIGTERM or Ctrl+C."""

from __future__ import annotations

import logging
import os
import signal
import sys

from app.core.database import Database
from app.core.errors import AppError
from app.core.first_run import register_demo
from app.core.logs import set_up_logging
from app.core.paths import DataFolder
from app.core.settings import Settings
from worker.loop import build_worker, lock_data_folder

logger = logging.getLogger("worker")

EXIT_ALREADY_RUNNING = 3


def main() -> int:
    os.umask(0o077)
    settings = Settings()
    set_up_logging(settings.log_level)
    folder = DataFolder(settings.home).create()
    try:
        lock = lock_data_folder(folder)
    except AppError as error:
        logger.error("%s %s", error.message, error.advice or "")
        return EXIT_ALREADY_RUNNING
    with lock:
        database = Database(settings.effective_database_url)
        database.migrate(folder.backups)
        register_demo(database, folder)
        worker = build_worker(settings, database)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        worker.start()
        logger.info("the worker runs on %s", folder.home)
        worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
