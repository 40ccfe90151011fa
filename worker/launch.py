"""Start the process that works on a claimed job: its folder, what it is told, its limits."""

from __future__ import annotations

import signal
from pathlib import Path

from app.core.database import Database
from app.core.jobs.models import Attempt, Job
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import LIGHT_LANES, JobKind, Lane
from app.core.paths import DataFolder, write_private
from worker.children import Children, kill_group
from worker.context import Assignment
from worker.limits import PATIENCE_SECONDS
from worker.payload import build_payload
from worker.supervisor import Supervisor


class Launcher:
    """Starts children on claimed jobs."""

    def __init__(self, database: Database, folder: DataFolder, cache: Path, children: Children) -> None:
        self._database = database
        self._folder = folder
        self._cache = cache
        self._children = children

    def launch(self, lane: Lane, job: Job, attempt: Attempt) -> Supervisor:
        """Start the child and put it on record; one that cannot be is ended again. Raises: AppError, OSError.

        The spare is for the GPU's lane.
        """
        assignment = self._prepare(lane, job, attempt)
        child = self._children.start(assignment, cold=lane is not Lane.GPU)
        patience = PATIENCE_SECONDS if assignment.light else None
        try:
            return Supervisor(self._database, self._folder, job, attempt, child, patience)
        except BaseException:
            kill_group(child, signal.SIGKILL)
            child.wait()
            raise

    def _prepare(self, lane: Lane, job: Job, attempt: Attempt) -> Assignment:
        """The attempt's folder and what the child is told. Raises: AppError, OSError."""
        folder = self._folder.job(job.key).resolve()
        attempt_folder = self._folder.attempt(job.key, attempt.number).resolve()
        attempt_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if job.kind == JobKind.TRAIN:
            write_private(folder / "spec.yaml", parse_spec(job.spec).to_yaml())
        log = folder / "train.log"
        with self._database.write() as session:
            payload = build_payload(session, self._folder, self._cache, job)
            stored = session.get_one(Attempt, (job.key, attempt.number))
            stored.log_offset = log.stat().st_size if log.exists() else 0
            session.add(stored)
        spool, light = attempt_folder / "spool.jsonl", _is_light(lane, job)
        return Assignment(job.key, job.kind.value, attempt.number, str(folder), str(spool), str(log), payload, light)


def _is_light(lane: Lane, job: Job) -> bool:
    """Whether the process has limits. A download takes what it takes; what comes after it sets its own limit."""
    return lane in LIGHT_LANES and job.spec.get("kind") != "hub"
