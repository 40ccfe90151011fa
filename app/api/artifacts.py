"""Artifacts: list, download, delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import Response

from app.api.schemas import ArtifactOut, FreedOut, JobOut, KeepIn, PushIn
from app.artifacts.downloads import send_file, send_zip
from app.core.artifacts.deletion import delete_artifact, delete_files
from app.core.artifacts.keeping import keep_checkpoint
from app.core.artifacts.models import Artifact
from app.core.artifacts.store import get_artifact, list_artifacts
from app.core.exports.uploads import Target, submit_upload
from app.core.jobs import queue
from app.web.dependencies import DatabaseDep, FolderDep, JobDep, SessionDep, WriteSessionDep

router = APIRouter(prefix="/jobs/{job_id}/artifacts", tags=["artifacts"])

_RANGES: dict[int | str, dict[str, Any]] = {
    206: {"description": "The range that `Range` asks for, where `If-Range` is absent or still the ETag."},
    416: {"description": "A range beyond the end, or several."},
}


def find_artifact(
    job: JobDep, kind: str, session: SessionDep, step: int | None = None, id: int | None = None
) -> Artifact:
    """The newest of a kind, of one step or with one id if asked."""
    return get_artifact(session, job, kind, step, id)


ArtifactDep = Annotated[Artifact, Depends(find_artifact, scope="function")]


@router.get("", name="api_list_artifacts")
def list_all(job: JobDep, session: SessionDep) -> list[ArtifactOut]:
    """What the job produced and what was made from it, newest first."""
    return [ArtifactOut.model_validate(artifact) for artifact in list_artifacts(session, job)]


@router.post("/checkpoint/{step}/keep", name="api_keep_checkpoint")
def keep(
    job_id: int,
    step: int,
    session: WriteSessionDep,
    folder: FolderDep,
    body: Annotated[KeepIn, Body()] = KeepIn(),  # noqa: B008
) -> ArtifactOut:
    """Keep a checkpoint, however many come after it."""
    job = queue.get_job(session, job_id)
    return ArtifactOut.model_validate(keep_checkpoint(session, folder, job, step, kept=body.kept))


@router.head("/{kind}", include_in_schema=False)
@router.get("/{kind}", name="api_download_artifact", responses=_RANGES)
def download(
    request: Request, job: JobDep, artifact: ArtifactDep, database: DatabaseDep, folder: FolderDep
) -> Response:
    """The newest artifact of a kind (adapter, model, checkpoint, merged, gguf) as a zip, which can be resumed."""
    return send_zip(request, database, folder, job, artifact)


@router.head("/{kind}/files/{path:path}", include_in_schema=False)
@router.get("/{kind}/files/{path:path}", name="api_download_file", responses=_RANGES)
def download_one(request: Request, job: JobDep, artifact: ArtifactDep, path: str, folder: FolderDep) -> Response:
    """One file of an artifact as it lies there; its ETag is its SHA-256."""
    return send_file(request, folder, job, artifact, path)


@router.post("/{kind}/push", status_code=201, name="api_push_artifact")
def push(
    job_id: int,
    kind: str,
    body: PushIn,
    session: WriteSessionDep,
    folder: FolderDep,
    step: int | None = None,
    id: int | None = None,
) -> JobOut:
    """Queue the upload of an artifact to the Hugging Face hub; the job's summary then holds {repo, url, commit, …}."""
    source = queue.get_job(session, job_id)
    artifact = get_artifact(session, source, kind, step, id)
    return JobOut.model_validate(submit_upload(session, folder, source, artifact, Target(**body.model_dump())))


@router.delete("/{kind}", name="api_delete_artifact")
def delete(job: JobDep, artifact: ArtifactDep, database: DatabaseDep, folder: FolderDep) -> FreedOut:
    """Delete the newest artifact of a kind, or the one with `id`; 409 while a job may need it."""
    return FreedOut(freed_bytes=delete_artifact(database, folder, job.key, artifact.key))


@router.delete("", name="api_delete_files")
def delete_all(job: JobDep, database: DatabaseDep, folder: FolderDep) -> FreedOut:
    """Delete all that a job made, what was made from it, and its training states; its history stays."""
    return FreedOut(freed_bytes=delete_files(database, folder, job.key))
