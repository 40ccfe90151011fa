"""Artifacts: folders with a `meta.json`, and their rows in the database."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from app.core.artifacts.manifest import META as META
from app.core.artifacts.manifest import list_file
from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.errors import Conflict, NotFound
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind
from app.core.paths import DataFolder


def read_files(folder: Path) -> list[dict[str, Any]]:
    """[{path, bytes, sha256, crc32}] of a finished folder: what its `meta.json` lists, and that file itself.

    Raises: OSError, KeyError, ValueError.
    """
    files: list[dict[str, Any]] = json.loads((folder / META).read_bytes())["files"]
    return [*files, list_file(folder, folder / META)]


def list_meta(folder: Path) -> dict[str, Any]:
    """{path, bytes, sha256, crc32} of the `meta.json` itself, which artifacts of earlier versions do not list.

    Raises: Conflict where it is gone.
    """
    try:
        return list_file(folder, folder / META)
    except OSError as error:
        raise Conflict(f"{META} of this artifact is missing from the data folder: {error}") from error


def keep_files(database: Database, artifact_id: int, files: list[dict[str, Any]]) -> None:
    """Remember what was computed of an artifact's files, where it is still there."""
    with database.write() as session:
        artifact = session.get(Artifact, artifact_id)
        if artifact is not None:
            artifact.files = files
            artifact.bytes = sum(file["bytes"] for file in files)
            session.add(artifact)


def record(session: Session, folder: DataFolder, job_id: int, step: int | None, data: dict[str, Any]) -> Artifact:
    """Store what a child announced: {kind, path, certificate?}. The same path replaces its row."""
    found = session.exec(select(Artifact).where(Artifact.job_id == job_id, Artifact.path == data["path"])).first()
    files = read_files(folder.job(job_id) / data["path"])
    certificate = data.get("certificate")
    artifact = found or Artifact(job_id=job_id, kind=data["kind"], path=data["path"], bytes=0, created_at=time.time())
    artifact.step, artifact.files, artifact.certificate = step, files, certificate
    artifact.bytes = sum(file["bytes"] for file in files)
    artifact.verified = bool(certificate["passed"]) if certificate else None
    session.add(artifact)
    return artifact


def list_artifacts(session: Session, job: Job) -> Sequence[Artifact]:
    """What the job produced, and what was merged or exported from it, newest first."""
    made = select(Job.id).where(Job.source_job_id == job.id, col(Job.kind).in_((JobKind.MERGE, JobKind.EXPORT)))
    mine = (col(Artifact.job_id) == job.id) | col(Artifact.job_id).in_(made)
    return session.exec(select(Artifact).where(mine).order_by(col(Artifact.id).desc())).all()


def trained_kind(job: Job) -> str:
    """The kind of what a training job saves at its end: an adapter, or a whole model where every weight is trained."""
    return "model" if job.spec.get("method") == "full" else "adapter"


def find_artifact(
    session: Session, job: Job, kind: str, step: int | None = None, artifact_id: int | None = None
) -> Artifact | None:
    """The newest of a kind (adapter, model, checkpoint, merged, gguf), of one step or with one id if asked."""
    of_kind = (a for a in list_artifacts(session, job) if a.kind == kind)
    return next((a for a in of_kind if step in (None, a.step) and artifact_id in (None, a.id)), None)


def get_artifact(
    session: Session, job: Job, kind: str, step: int | None = None, artifact_id: int | None = None
) -> Artifact:
    """Raises: NotFound that says what there is."""
    artifact = find_artifact(session, job, kind, step, artifact_id)
    if artifact is None:
        asked = f" at step {step}" if step is not None else ""
        asked += f" with id {artifact_id}" if artifact_id is not None else ""
        made = sorted(list_artifacts(session, job), key=lambda each: (each.kind, each.step or 0))
        there = ", ".join(dict.fromkeys(map(_called, made))) or "nothing yet"
        raise NotFound(f"Job {job.id} has no {kind}{asked}.", advice=f"It has: {there}.")
    return artifact


def _called(artifact: Artifact) -> str:
    if artifact.kind == "checkpoint" and artifact.step is not None:
        return f"checkpoint at step {artifact.step}"
    return artifact.kind


def drop_missing(session: Session, folder: DataFolder, job_id: int) -> None:
    """Forget rows whose folder is gone, as old checkpoints are once newer ones are saved."""
    for artifact in session.exec(select(Artifact).where(Artifact.job_id == job_id)).all():
        if not (folder.job(job_id) / artifact.path).is_dir():
            session.delete(artifact)
