"""Keep the database small: readings are rolled up and events dropped by rule, in the background, a little at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from app.core.database import Database
from app.core.errors import DatabaseDamaged
from app.core.events.pruning import find_ended, prune_job, prune_readings
from app.core.metrics.rollup import find_due, roll_up
from app.core.settings import Settings

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 30.0
_REST = 9  # times as long as a transaction took is waited after it, so that others have nine tenths of the database
_SHORTEST_REST_SECONDS = 0.05
_CLOSING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Rules:
    """Ages in seconds."""

    to_ten_seconds: float
    to_a_minute: float
    gpu_events: float
    job_events: float

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        return cls(
            to_ten_seconds=3600 * settings.keep_readings_hours,
            to_a_minute=86400 * settings.keep_readings_days,
            gpu_events=60 * settings.keep_gpu_events_minutes,
            job_events=86400 * settings.keep_events_days,
        )


class Retention:
    """The rules, applied a transaction at a time. What has been done already costs nothing."""

    def __init__(self, database: Database, rules: Rules) -> None:
        self._database = database
        self._rules = rules
        self._pruned: tuple[float, int] = (0.0, 0)  # the job up to which events are dropped, by the time of its end

    def step(self, now: float) -> bool:
        """Do what is due next. Returns whether there may be more."""
        rules = self._rules
        return (
            self._roll_up(1, 10, now - rules.to_ten_seconds)
            or self._roll_up(10, 60, now - rules.to_a_minute)
            or self._write(lambda session: prune_readings(session, now - rules.gpu_events))
            or self._prune_next_job(now - rules.job_events)
        )

    def _roll_up(self, seconds: int, to: int, before: float) -> bool:
        with self._database.read() as session:
            if find_due(session, seconds, to, before) is None:
                return False
        return self._write(lambda session: roll_up(session, seconds, to, before))

    def _prune_next_job(self, before: float) -> bool:
        with self._database.read() as session:
            found = find_ended(session, self._pruned, before)
        if found is None:
            return False
        if not self._write(lambda session: prune_job(session, found[1], before)):
            self._pruned = found
        return True

    def _write(self, change: Callable[[Session], int]) -> bool:
        with self._database.write() as session:
            return change(session) > 0


class RetentionThread(threading.Thread):
    """Applies the rules until told to stop."""

    def __init__(self, retention: Retention) -> None:
        super().__init__(name="retention", daemon=True)
        self._retention = retention
        self._stop_event = threading.Event()

    def run(self) -> None:
        while not self._stop_event.wait(INTERVAL_SECONDS):
            try:
                self._catch_up()
            except DatabaseDamaged:  # said by whoever found it; the loop ends for the same reason
                return
            except OperationalError as error:  # locked or full; the next round goes on where this one stopped
                logger.warning("old readings and events wait: %s", error, extra={"action": "retain"})

    def _catch_up(self) -> None:
        more = True
        while more:
            began = time.monotonic()
            more = self._retention.step(time.time())
            rest = max(_SHORTEST_REST_SECONDS, _REST * (time.monotonic() - began))
            more = not self._stop_event.wait(rest) and more

    def stop(self) -> None:
        """Ask the thread to end, and wait for the transaction in hand."""
        self._stop_event.set()
        self.join(timeout=_CLOSING_SECONDS)
