"""Ends live streams whose login or token has ended: a request is checked when it begins, and a stream goes on."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool

from app.core.accounts.sessions import find_ended
from app.core.database import Database
from app.core.errors import DatabaseDamaged
from app.web.tailer import EventTailer

LOOK_SECONDS = 5.0

logger = logging.getLogger(__name__)


async def end_streams_of_ended_logins(tailer: EventTailer, database: Database) -> None:
    """Runs until it is cancelled: one query every few seconds, however many streams are open."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        credentials = tailer.credentials()
        if not credentials:
            continue
        try:
            tailer.end_streams(await run_in_threadpool(_find_ended, database, credentials))
        except OperationalError as error:  # busy: the next look tells
            logger.warning("logins of open streams could not be checked: %s", error)
        except DatabaseDamaged:  # the tailer ends all streams
            return


def _find_ended(database: Database, credentials: set[str]) -> set[str]:
    with database.read() as session:
        return find_ended(session, credentials)
