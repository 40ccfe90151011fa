"""Delete what a job made: from the pages first, then from the disk, and never from under a job that reads it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from sqlmodel import Session, col, func, select

from app.core.artifacts.manifest import kept_mark
from app.core.artifacts.models import Artifact
from app.core.artifacts.store import list_artifacts
from app.core.database import Database
from app.core.errors import Conflict, NotFound
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.jobs.status import ENDED
from app.core.paths import DataFolder

logger = logging.getLogger(__name__)

_STATES = "state"  # below a job's folder: what a training could go on from


def freed_bytes(folder: DataFolder, artifacts: Sequence[Artifact], *more: Path) -> int:
    """What the disk gets back: a file that another folder has too, by a hard link, is not counted."""
    roots = [*(folder.job(each.job_id) / each.path for each in artifacts), *more]
    files = (path.lstat() for root in roots if root.is_dir() for path in root.rglob("*") if not path.is_dir())
    return sum(found.st_size for found in files if found.st_nlink == 1)


def job_states(folder: DataFolder, job: Job) -> Path:
    """The folder of the states that a training could go on from."""
    return folder.job(job.key) / _STATES


def delete_artifact(database: Database, folder: DataFolder, job_id: int, artifact_id: int) -> int:
    """Delete one artifact of a job; returns the bytes that were freed. Raises: NotFound; Conflict while in use."""
    with database.read() as session:
        job = get_job(session, job_id)
        found = [artifact for artifact in list_artifacts(session, job) if artifact.id == artifact_id]
    if not found:
        raise NotFound(f"Job {job_id} has no artifact {artifact_id}.", advice="It may have been deleted already.")
    return _delete(database, folder, job, found)


def delete_files(database: Database, folder: DataFolder, job_id: int) -> int:
    """Delete all that a job made, with what was made from it and its training states; its history stays.

    Returns the bytes that were freed. Raises: Conflict while a job is at work on it.
    """
    with database.read() as session:
        job = get_job(session, job_id)
        found = list_artifacts(session, job)
    return _delete(database, folder, job, found, job_states(folder, job))


def _delete(database: Database, folder: DataFolder, job: Job, artifacts: Sequence[Artifact], *more: Path) -> int:
    """Renamed first, so that no half of a folder is ever seen; put back where the rows cannot be removed."""
    freed = freed_bytes(folder, artifacts, *more)
    places = [*(folder.job(each.job_id) / each.path for each in artifacts), *more]
    condemned = [(place, place.with_name(f".{place.name}.removed")) for place in places if place.is_dir()]
    with database.write() as session:
        _require_unused(session, job, artifacts)
        for each in artifacts:
            session.delete(session.get_one(Artifact, each.key))
        session.flush()
        moved = []
        try:
            for place, aside in condemned:
                shutil.rmtree(aside, ignore_errors=True)
                place.rename(aside)
                moved.append((place, aside))
        except OSError:
            for place, aside in moved:
                aside.rename(place)
            raise
    for place, aside in condemned:
        kept_mark(place).unlink(missing_ok=True)  # else a later one of this name would be kept, too
        shutil.rmtree(aside)
    logger.info("job %s: %d bytes freed", job.id, freed, extra={"action": "delete_artifacts", "job_id": job.id})
    return freed


def _require_unused(session: Session, job: Job, artifacts: Sequence[Artifact]) -> None:
    """Raises: Conflict that names the job which has not ended."""
    owners = {job.key, *(each.job_id for each in artifacts)}
    starts = func.json_extract(col(Job.spec), "$.init_adapter").in_([str(owner) for owner in owners])
    involved = col(Job.id).in_(owners) | col(Job.source_job_id).in_(owners) | starts
    users = select(Job).where(involved, col(Job.status).not_in(ENDED))
    user = session.exec(users.order_by(col(Job.id))).first()
    if user is not None:
        raise Conflict(
            f"Job {user.id} ({user.name}) is {user.status} and may need this.",
            advice=f"Wait until it has ended, or cancel it: loradeck jobs cancel {user.id}",
        )
