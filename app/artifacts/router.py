"""Downloads of what jobs made."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.artifacts.downloads import send_file, send_zip
from app.core.artifacts.store import get_artifact
from app.web.dependencies import DatabaseDep, FolderDep, JobDep, SessionDep

router = APIRouter(include_in_schema=False)

_READ = ["GET", "HEAD"]


@router.api_route("/jobs/{job_id}/artifacts/{kind}", methods=_READ)
def download_artifact(
    request: Request,
    job: JobDep,
    kind: str,
    session: SessionDep,
    database: DatabaseDep,
    folder: FolderDep,
    step: int | None = None,
    id: int | None = None,
) -> Response:
    """The newest artifact of a kind (adapter, model, checkpoint, merged, gguf), of one step if asked, as a zip."""
    return send_zip(request, database, folder, job, get_artifact(session, job, kind, step, id))


@router.api_route("/jobs/{job_id}/artifacts/{kind}/files/{path:path}", methods=_READ)
def download_file(
    request: Request,
    job: JobDep,
    kind: str,
    path: str,
    session: SessionDep,
    folder: FolderDep,
    step: int | None = None,
    id: int | None = None,
) -> Response:
    """One file of an artifact as it lies there."""
    return send_file(request, folder, job, get_artifact(session, job, kind, step, id), path)
