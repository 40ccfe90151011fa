"""The worker's lanes of datasets alone, on a thread: real children check what tests upload, without a heartbeat."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.claims import find_next
from app.core.jobs.status import Lane
from app.core.paths import DataFolder
from tests.forked_children import ForkedChildren
from worker.children import Children
from worker.launch import Launcher
from worker.supervisor import Supervisor

_PAUSE_SECONDS = 0.01
_LANES = (Lane.DATA, Lane.CHECK)


class DataLane:
    """Works through the lanes' queues while it is entered. `paused` holds up what is not claimed yet."""

    def __init__(self, home: Path, children: Children | ForkedChildren) -> None:
        self._database = Database(f"sqlite:///{home / 'loradeck.db'}")
        self._launcher = Launcher(self._database, DataFolder(home), home / "cache", children)  # type: ignore[arg-type]
        self._supervisor: Supervisor | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="data lane")
        self.paused = False

    def __enter__(self) -> DataLane:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._database.engine.dispose()

    def _work(self) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            if self._supervisor is None:
                self._supervisor = None if self.paused else self._claim_any()
            elif not self._supervisor.step():
                self._supervisor = None
        if self._supervisor is not None:
            self._supervisor.interrupt(timeout_seconds=5)

    def _claim_any(self) -> Supervisor | None:
        """The next job of either lane: forked children start one at a time."""
        return next((claimed for lane in _LANES if (claimed := self._claim(lane)) is not None), None)

    def _claim(self, lane: Lane) -> Supervisor | None:
        """The next job; imports from the hub are left to the tests."""
        with self._database.read() as session:
            found = find_next(session, lane)
            if found is None or queue.get_job(session, found).spec.get("kind") == "hub":
                return None
        with self._database.write() as session:
            claimed = queue.claim_next(session, lane)
        return self._launcher.launch(*claimed) if claimed else None
