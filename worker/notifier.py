"""Sends notifications beside the loop: what is worth telling goes to the outbox first, from there to the receiver."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection

from sqlalchemy.exc import OperationalError

from app.core.database import Database
from app.core.errors import DatabaseDamaged, InvalidInput
from app.core.notices import outbox
from app.core.notices.delivery import Outcome, deliver
from app.core.notices.models import Webhook
from app.core.notices.shapes import shape_message
from app.core.notices.webhook import find_receiver
from app.core.paths import DataFolder

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 2.0
_KEEP_CURSOR_SECONDS = 60.0  # a cursor that lags costs reading some events twice, and no second notice
_CLOSING_SECONDS = 15.0


class Notifier:
    """One round at a time; without a receiver it does nothing."""

    def __init__(self, database: Database, folder: DataFolder, named: Collection[str]) -> None:
        self._database, self._folder, self._named = database, folder, named
        self._cursor = 0
        self._keep_at = 0.0

    def start(self) -> None:
        """What an earlier worker was sending is given up."""
        with self._database.write() as session:
            outbox.give_up_lost(session)

    def step(self) -> bool:
        """Make notices of what is new, then send the next one. Returns whether there may be more."""
        with self._database.read() as session:
            webhook, receiver = session.get(Webhook, 1), find_receiver(session, self._folder)
            if webhook is None or receiver is None:
                return False
            self._cursor = max(self._cursor, webhook.cursor)
            news, cursor = outbox.find_news(session, webhook, self._cursor)
        self._cursor = cursor
        if news or time.monotonic() > self._keep_at:
            self._keep_at = time.monotonic() + _KEEP_CURSOR_SECONDS
            with self._database.write() as session:
                outbox.store_news(session, news, cursor)
        return self._send_next()

    def _send_next(self) -> bool:
        with self._database.write() as session:
            notice = outbox.find_due(session, time.time())
            receiver = find_receiver(session, self._folder)
            if notice is None or receiver is None or not outbox.claim(session, notice):
                return False
        url, payload = shape_message(receiver.url, receiver.shape, notice, receiver.link(notice.job_id))
        try:
            outcome = deliver(url, payload, self._named)
        except InvalidInput as error:  # an address that the environment holds
            outcome = Outcome(False, False, f"The receiver's address {error.faults[0].message}")
        with self._database.write() as session:
            settled = outbox.settle(session, notice.key, outcome)
        told = {"action": "notify", "job_id": notice.job_id}
        level = logging.INFO if outcome.delivered else logging.WARNING
        logger.log(level, "notice %s is %s: %s", notice.id, settled.status, outcome.message, extra=told)
        return True


class NotifierThread(threading.Thread):
    """Sends until told to stop. A receiver that is slow delays other notices, and nothing else."""

    def __init__(self, notifier: Notifier) -> None:
        super().__init__(name="notifier", daemon=True)
        self._notifier = notifier
        self._stop_event = threading.Event()
        self._prepared = False

    def run(self) -> None:
        more = True
        while not self._stop_event.wait(0.0 if more else INTERVAL_SECONDS):
            try:
                more = self._step()
            except DatabaseDamaged:  # said by whoever found it; the loop ends for the same reason
                return
            except OperationalError as error:  # locked or full; the next round goes on where this one stopped
                more = False
                logger.warning("notifications wait: %s", error, extra={"action": "notify"})

    def _step(self) -> bool:
        if not self._prepared:
            self._notifier.start()
            self._prepared = True
        return self._notifier.step()

    def stop(self) -> None:
        """Ask the thread to end, and wait for the message in hand."""
        self._stop_event.set()
        self.join(timeout=_CLOSING_SECONDS)
