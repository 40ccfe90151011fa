"""Checkpoints that somebody keeps: no later one takes their place.

A mark is a file beside the checkpoint's folder, since a training that runs drops old ones without asking the database.
It drops a folder by renaming it first and then looking for the mark once more; the mark is set first, and then the
folder looked for. So whoever comes second sees the other.
"""

from __future__ import annotations

from sqlmodel import Session

from app.core.artifacts.manifest import kept_mark
from app.core.artifacts.models import Artifact
from app.core.artifacts.store import get_artifact
from app.core.errors import NotFound
from app.core.jobs.models import Job
from app.core.paths import DataFolder


def keep_checkpoint(session: Session, folder: DataFolder, job: Job, step: int, *, kept: bool = True) -> Artifact:
    """Keep a checkpoint, or let it go with the others again. Raises: NotFound."""
    artifact = get_artifact(session, job, "checkpoint", step)
    place = folder.job(artifact.job_id) / artifact.path
    mark = kept_mark(place)
    if not kept:
        mark.unlink(missing_ok=True)
    else:
        mark.touch(mode=0o600)
        if not place.is_dir():
            mark.unlink(missing_ok=True)
            raise NotFound(f"The checkpoint of step {step} has just been dropped.", advice="Keep a later one.")
    artifact.kept = kept
    session.add(artifact)
    session.flush()
    return artifact
