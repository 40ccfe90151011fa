"""Artifacts: list and download."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from app.api.schemas import ArtifactOut
from app.artifacts.zips import zip_response
from app.core.artifacts.store import get_artifact, list_artifacts
from app.web.dependencies import FolderDep, JobDep, SessionDep

router = APIRouter(prefix="/jobs/{job_id}/artifacts", tags=["artifacts"])


@router.get("", name="api_list_artifacts")
def list_all(job: JobDep, session: SessionDep) -> list[ArtifactOut]:
    """What the job produced and what was merged from it, newest first."""
    return [ArtifactOut.model_validate(artifact) for artifact in list_artifacts(session, job)]


@router.get("/{kind}", name="api_download_artifact")
def download(
    job: JobDep, kind: str, session: SessionDep, folder: FolderDep, step: int | None = None
) -> StreamingResponse:
    """The newest artifact of a kind (adapter, model, checkpoint, merged) as a zip."""
    return zip_response(folder, job, get_artifact(session, job, kind, step))
