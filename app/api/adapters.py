"""Adapters that were trained elsewhere: take one in."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Form, UploadFile

from app.api.schemas import JobOut
from app.core.adapters.submit import queue_adapter
from app.core.datasets.incoming import IncomingFile
from app.web.dependencies import FolderDep, WriteSessionDep
from app.web.uploads import StoringRoute

router = APIRouter(prefix="/adapters", tags=["adapters"], route_class=StoringRoute)


@router.post("", status_code=201, name="api_import_adapter")
def import_adapter(
    file: UploadFile,
    base_model: Annotated[str, Form(description="The registered model that it was trained on, by name or id.")],
    session: WriteSessionDep,
    folder: FolderDep,
    name: Annotated[str | None, Form(max_length=120)] = None,
) -> JobOut:
    """Upload a zip of an adapter's folder; a job checks it; once completed it is merged or chatted with by its id."""
    return JobOut.model_validate(queue_adapter(session, folder, cast(IncomingFile, file.file), base_model, name))
