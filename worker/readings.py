"""Sample GPU and host once a second, on a thread of its own: a driver that hangs must not hold up the queue."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import OperationalError

from app.core.database import Database
from app.core.errors import DatabaseDamaged
from app.core.events import log as events
from app.core.events.types import EventKind
from app.core.jobs.models import WorkerState
from app.core.metrics.models import MemoryReading
from worker.gpu import Sampler

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Running:
    """The job that has the GPU now."""

    job_id: int
    pid: int


class ReadingsThread(threading.Thread):
    """Stores readings until told to stop. `running` is set by the worker's loop."""

    def __init__(self, database: Database, sampler: Sampler) -> None:
        super().__init__(name="readings", daemon=True)
        self._database = database
        self._sampler = sampler
        self._stop_event = threading.Event()
        self.running: Running | None = None

    def run(self) -> None:
        while not self._stop_event.wait(INTERVAL_SECONDS):
            try:
                self.store()
            except DatabaseDamaged:  # said by whoever found it; the loop ends for the same reason
                return
            except OperationalError as error:  # a locked database costs this reading, not the next
                logger.warning("a reading was not stored: %s", error, extra={"action": "sample"})

    def store(self) -> None:
        """Take one reading and store it, as the newest, in the job's series, and as an event."""
        running = self.running
        reading = self._sampler.sample(running.pid if running else None)
        data = reading.to_json()
        data.pop("time")
        job_id = running.job_id if running else None
        with self._database.write() as session:
            state = session.get_one(WorkerState, 1)
            state.reading = data
            session.add(state)
            if job_id is not None:
                session.add(MemoryReading(job_id=job_id, time=reading.time, data=_memory(data)))
            events.append(session, EventKind.GPU, data, job_id=job_id, at=reading.time)

    def stop(self) -> None:
        """Ask the thread to end, and wait for the reading in hand."""
        self._stop_event.set()
        self.join(timeout=5)


def _memory(data: dict[str, Any]) -> dict[str, Any]:
    """What a job's memory chart needs of a reading; process lists are left out."""
    devices = [{name: value for name, value in device.items() if name != "processes"} for device in data["devices"]]
    return {"available": data["available"], "devices": devices, "host": data["host"]}
