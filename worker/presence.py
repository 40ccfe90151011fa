"""The worker's own row: who serves the data folder, and that it is alive."""

from __future__ import annotations

import os
import time

from sqlalchemy import update
from sqlmodel import col

from app import __version__
from app.core.boot import uptime_seconds
from app.core.database import Database
from app.core.errors import AppError
from app.core.jobs.models import WorkerState
from worker.hub_token import has_own_token
from worker.identity import ProcessIdentity


class Deposed(AppError):
    """Another worker serves this data folder now; this one's writes are refused."""

    code = "deposed"


class Presence:
    """Says that this process is the worker, until another one says so."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._me = ProcessIdentity.of(os.getpid())
        self._started_at = 0.0

    def enter(self) -> bool:
        """Become the worker. Returns whether children that live are of this version's code, as far as is known."""
        self._started_at = time.time()
        with self._database.write() as session:
            state = session.get(WorkerState, 1) or WorkerState(
                pid=0, pid_started_at=0, boot_id="", version=__version__, started_at=0, heartbeat_at=0
            )
            me = self._me
            state.pid, state.pid_started_at, state.boot_id = me.pid, me.started_at, me.boot_id
            state.started_at, state.heartbeat_at = self._started_at, uptime_seconds()
            state.capabilities = None  # of another installation, for all that is known
            state.hub_token = has_own_token(os.environ)
            session.add(state)
            return state.version == __version__

    def own_children(self) -> None:
        """From now on the children that live are of this version. Raises: Deposed."""
        self._set(version=__version__)

    def beat(self) -> None:
        """Raises: Deposed."""
        self._set(heartbeat_at=uptime_seconds())

    def leave(self) -> None:
        """Said to be gone, rather than found to be silent. Raises: Deposed."""
        self._set(heartbeat_at=0.0)

    def _set(self, **fields: object) -> None:
        mine = (
            col(WorkerState.pid) == self._me.pid,
            col(WorkerState.pid_started_at) == self._me.started_at,
            col(WorkerState.boot_id) == self._me.boot_id,
            col(WorkerState.started_at) == self._started_at,
        )
        with self._database.write() as session:
            if session.execute(update(WorkerState).where(*mine).values(**fields)).rowcount != 1:  # type: ignore[attr-defined]
                raise Deposed()
