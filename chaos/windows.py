"""Wait for the moment that a kill is meant for, and tell afterwards whether it was met."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import col, select

from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import ENDED
from chaos.plan import Strike, Window
from chaos.stack import Stack
from chaos.watch import Change, TreeWatch
from worker.spool import read_spool

PATIENCE_SECONDS = 40.0
_TICK_SECONDS = 0.02
_LOOK_SECONDS = 0.25
_STEP = r"/(checkpoints|state)/"
_SIGNS: dict[Window, re.Pattern[str]] = {  # what appears below jobs/<id> as the window opens
    Window.CHECKPOINT: re.compile(_STEP + r"\.step-\d+\.partial$"),
    Window.RENAME: re.compile(r"/checkpoints/step-\d+$"),
    Window.PRUNE: re.compile(_STEP + r"\.step-\d+\.removed$"),
    Window.FINAL: re.compile(r"/\.adapter\.partial$"),
    Window.MERGE: re.compile(r"/\.merged\.partial$"),
    Window.CLAIM: re.compile(r"/attempts/\d+$"),
}
_SPOOL = "spool.jsonl"


@dataclass(frozen=True, slots=True)
class Sight:
    """A window that is open: the job that it belongs to, and what was seen."""

    job_id: int
    path: Path


@dataclass(slots=True)
class Lookout:
    """Watches the jobs' folders. `meanwhile` is called some times a second while it waits."""

    stack: Stack
    meanwhile: Callable[[], object]

    def wait(self, strike: Strike, wanted: Callable[[int], bool]) -> Sight | None:
        """Until the window opens for a job that is `wanted` by its id; None where that does not come.

        The process that is meant is stopped then, after the strike's delay: to look the job up takes longer than many a
        window is open.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        with TreeWatch(self._busy_folders(), flat=self.stack.home / "jobs") as watch:
            look_at = 0.0
            while (now := time.monotonic()) < deadline:
                if now >= look_at:
                    self.meanwhile()
                    pids, look_at = self.stack.pids(strike.target), time.monotonic() + _LOOK_SECONDS
                    watch.wait(0)  # what has come meanwhile is seen too late
                for change in watch.wait(_TICK_SECONDS):
                    job_id = self._job_of(change.path)
                    if job_id in pids and _opens(strike.window, change):
                        time.sleep(strike.delay_seconds)
                        if _signal(pids[job_id], signal.SIGSTOP) and wanted(job_id):
                            return Sight(job_id, change.path)
                        _signal(pids[job_id], signal.SIGCONT)
        return None

    def was_met(self, window: Window, sight: Sight) -> bool:
        """Whether what lies there after the kill shows that it hit the window."""
        if window in (Window.CHECKPOINT, Window.PRUNE, Window.FINAL, Window.MERGE):
            return sight.path.exists()
        if window is Window.RENAME:
            return not self._was_told(sight)
        with self.stack.database.read() as session:
            job = session.get_one(Job, sight.job_id)
            attempt = session.get(Attempt, (job.key, job.attempts))
        if window is Window.CLAIM:
            return attempt is not None and attempt.pid is None
        if window is Window.SETTLE:
            return job.status not in ENDED
        return attempt is not None and attempt.spool_offset < sight.path.stat().st_size

    def _was_told(self, sight: Sight) -> bool:
        """Whether the child has announced the checkpoint."""
        path = str(sight.path.relative_to(self.stack.folder.job(sight.job_id)))
        with self.stack.database.read() as session:
            number = session.get_one(Job, sight.job_id).attempts
        spool = self.stack.folder.attempt(sight.job_id, number) / _SPOOL
        return any(record.kind == "artifact" and record.data["path"] == path for record, _ in read_spool(spool))

    def _busy_folders(self) -> list[Path]:
        """Of the jobs that have not ended; that of a new one shows itself."""
        with self.stack.database.read() as session:
            open_ids = session.exec(select(Job.id).where(col(Job.status).not_in(ENDED)))
            return [self.stack.folder.job(job_id) for job_id in open_ids if job_id is not None]

    def _job_of(self, path: Path) -> int | None:
        relative = path.relative_to(self.stack.home / "jobs")
        return int(relative.parts[0]) if relative.parts[0].isdigit() else None


def _signal(pid: int, number: signal.Signals) -> bool:
    """Whether there was such a process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _opens(window: Window, change: Change) -> bool:
    if window is Window.SETTLE:
        return change.path.name == _SPOOL and _says_finished(change.path)
    if window is Window.INGEST:
        return change.path.name == _SPOOL and not change.new
    return change.new and _SIGNS[window].search(str(change.path)) is not None


def _says_finished(spool: Path) -> bool:
    """Whether the last line is the child's last word."""
    with spool.open("rb") as file:
        file.seek(max(0, spool.stat().st_size - 4096))
        lines = file.read().splitlines()
    return bool(lines) and b'"kind":"finished"' in lines[-1]
