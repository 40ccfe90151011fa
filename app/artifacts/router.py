"""Downloads of what jobs made."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from app.artifacts.zips import zip_response
from app.core.artifacts.store import get_artifact
from app.web.dependencies import FolderDep, JobDep, SessionDep

router = APIRouter(include_in_schema=False)


@router.get("/jobs/{job_id}/artifacts/{kind}")
def download_artifact(
    job: JobDep, kind: str, session: SessionDep, folder: FolderDep, step: int | None = None
) -> Response:
    """The newest artifact of a kind (adapter, model, checkpoint, merged), of one step if asked, as a zip."""
    return zip_response(folder, job, get_artifact(session, job, kind, step))
