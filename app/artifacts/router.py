"""Downloads of what jobs made, exports, and deleting."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from app.artifacts import adapters, page, push
from app.artifacts.downloads import send_file, send_zip
from app.core.artifacts.deletion import delete_artifact, delete_files
from app.core.artifacts.store import get_artifact
from app.core.exports.submit import submit_export
from app.core.jobs.queue import get_job
from app.web.dependencies import DatabaseDep, FolderDep, JobDep, SessionDep, WriteSessionDep
from app.web.templating import redirect

router = APIRouter(include_in_schema=False)
router.include_router(page.router)
router.include_router(push.router)
router.include_router(adapters.router)

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


@router.post("/jobs/{job_id}/artifacts/{artifact_id}/delete")
def delete_job_artifact(
    request: Request,
    job_id: int,
    artifact_id: int,
    database: DatabaseDep,
    folder: FolderDep,
    back: Annotated[str, Form()] = "",
) -> Response:
    """Delete one artifact; the page asks before, and is shown again: the job's, or that of all artifacts."""
    delete_artifact(database, folder, job_id, artifact_id)
    url = request.app.url_path_for
    return redirect(request, url("list_all_artifacts") if back == "artifacts" else url("show_job", job_id=job_id))


@router.post("/jobs/{job_id}/artifacts/delete")
def delete_job_files(request: Request, job_id: int, database: DatabaseDep, folder: FolderDep) -> Response:
    """Delete all that a job made; the page asks before."""
    delete_files(database, folder, job_id)
    return redirect(request, request.app.url_path_for("show_job", job_id=job_id))


@router.post("/jobs/{job_id}/export")
def export_job(
    request: Request,
    job_id: int,
    session: WriteSessionDep,
    folder: FolderDep,
    quantization: Annotated[str, Form()] = "q8_0",
) -> Response:
    """Queue an export of the job's merged or whole model."""
    job = submit_export(session, folder, get_job(session, job_id), "gguf", quantization)
    return redirect(request, request.app.url_path_for("show_job", job_id=job.key))
