"""Find out once, in a niced process of its own, what the worker's children can do, and put it on record."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.core.database import Database
from app.core.jobs.capabilities import describe_capabilities
from app.core.jobs.models import WorkerState
from worker.children import kill_group

logger = logging.getLogger(__name__)

PROBE_COMMAND = (sys.executable, "-m", "worker.capabilities")
PATIENCE_SECONDS = 600.0  # a cold disk and a busy box; a driver that hangs takes longer
_QUIET = {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}


class Probe:
    """One measurement in a worker's life: started while the worker is idle, taken in when it is done. Never waits."""

    def __init__(self, database: Database, log: Path, command: Sequence[str] = PROBE_COMMAND) -> None:
        self._database = database
        self._log = log  # its standard error
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._give_up_at: float | None = None  # set with the first start, and there is no second

    def start(self) -> None:
        """Start measuring, unless that was done. Raises: OSError."""
        if self._give_up_at is not None:
            return
        self._give_up_at = time.monotonic() + PATIENCE_SECONDS
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env={**os.environ, **_QUIET},
            )

    def collect(self) -> None:
        """Put on record what it found, once it has ended."""
        if self._process is None:
            return
        code = self._process.poll()
        if code is None:
            if time.monotonic() > (self._give_up_at or 0.0):
                kill_group(self._process, signal.SIGKILL)
            return
        found = self._read(self._process.communicate()[0], code)
        self._process = None
        logger.info("children: %s", describe_capabilities(found), extra={"action": "probe"})
        with self._database.write() as session:
            state = session.get_one(WorkerState, 1)
            state.capabilities = found
            session.add(state)

    def end(self) -> None:
        """The worker stops: end the process if it still runs."""
        if self._process is not None:
            kill_group(self._process, signal.SIGKILL)
            self._process.communicate()
            self._process = None

    def _read(self, output: str, code: int) -> dict[str, Any]:
        """Its last line, which libraries may have printed before; or what became of it."""
        lines = output.splitlines()
        if code == 0 and lines:
            found: dict[str, Any] = json.loads(lines[-1])
            return found
        return {"problem": f"the process that measures it ended with code {code}; see {self._log}"}
