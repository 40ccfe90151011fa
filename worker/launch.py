"""Put a process to work on a claimed job: its folder, what it is told, its limits."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

from app.core.database import Database
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import Lane
from app.core.paths import DataFolder
from app.core.secrets import HF_TOKEN, find_secret
from worker.attempts import hold, put_on_record
from worker.children import Children
from worker.context import Assignment
from worker.identity import ProcessIdentity
from worker.lanes import is_light, lane_of, uses_hub
from worker.limits import PATIENCE_SECONDS
from worker.payload import build_payload
from worker.processes import AdoptedChild, OwnChild
from worker.supervisor import Supervisor


class Launcher:
    """Gives claimed jobs a child, and living children a supervisor."""

    def __init__(self, database: Database, folder: DataFolder, cache: Path, children: Children) -> None:
        self._database = database
        self._folder = folder
        self._cache = cache
        self._children = children

    def launch(self, job: Job, attempt: Attempt) -> Supervisor:
        """Start a child: it is on record before it is told what to do, so that none works that nobody knows of.

        One that cannot be supervised is ended again. The spare is for the GPU's lane. Raises: AppError, OSError.
        """
        assignment = self._prepare(job, attempt)
        record = partial(put_on_record, self._database, attempt)
        child = OwnChild(self._children.start(assignment, cold=lane_of(job) is not Lane.GPU, record=record))
        try:
            return Supervisor(self._database, self._folder, job, attempt, child, _patience(job))
        except BaseException:
            child.send(signal.SIGKILL)
            child.wait(PATIENCE_SECONDS)
            raise

    def adopt(self, job: Job, attempt: Attempt, identity: ProcessIdentity) -> Supervisor:
        """Go on with a child that an earlier worker has started. Raises: Conflict."""
        return Supervisor(self._database, self._folder, job, attempt, AdoptedChild(identity), _patience(job))

    def _prepare(self, job: Job, attempt: Attempt) -> Assignment:
        """The attempt's folder and what the child is told. Raises: AppError, OSError."""
        folder = self._folder.job(job.key).resolve()
        attempt_folder = self._folder.attempt(job.key, attempt.number).resolve()
        attempt_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        log, spool = folder / "train.log", attempt_folder / "spool.jsonl"
        with self._database.write() as session:
            payload = build_payload(session, self._folder, self._cache, job)
            _, stored = hold(session, attempt)
            stored.log_offset = log.stat().st_size if log.exists() else 0
            session.add(stored)
        kind, number = job.kind.value, attempt.number
        secrets = self._secrets(job)
        return Assignment(job.key, kind, number, str(folder), str(spool), str(log), payload, is_light(job), secrets)

    def _secrets(self, job: Job) -> dict[str, str]:
        """What the job needs to know: a job that talks to the hub gets its token, where there is one."""
        token = find_secret(self._folder, HF_TOKEN) if uses_hub(job) else None
        return {HF_TOKEN: token} if token is not None else {}


def _patience(job: Job) -> float | None:
    return PATIENCE_SECONDS if is_light(job) else None
