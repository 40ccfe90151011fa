"""Adapters that were trained elsewhere: take one in."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Form, UploadFile

from app.api.schemas import JobOut
from app.core.adapters.submit import queue_adapter, queue_local_adapter
from app.core.datasets.incoming import IncomingFile
from app.web.dependencies import FolderDep, SettingsDep, WriteSessionDep
from app.web.uploads import StoringRoute

router = APIRouter(prefix="/adapters", tags=["adapters"], route_class=StoringRoute)


@router.post("", status_code=201, name="api_import_adapter")
def import_adapter(
    base_model: Annotated[str, Form(description="The registered model that it was trained on, by name or id.")],
    session: WriteSessionDep,
    folder: FolderDep,
    settings: SettingsDep,
    file: UploadFile | None = None,
    path: Annotated[str, Form(description="In the file's place: a folder or zip under LORADECK_LOCAL_ROOTS.")] = "",
    name: Annotated[str | None, Form(max_length=120)] = None,
) -> JobOut:
    """Upload a zip of an adapter's folder; a job checks it; once completed it is merged, chatted with or trained on by
    its id."""
    if file is None:
        job = queue_local_adapter(session, path, settings.local_roots, base_model, name)
    else:
        job = queue_adapter(session, folder, cast(IncomingFile, file.file), base_model, name)
    return JobOut.model_validate(job)
