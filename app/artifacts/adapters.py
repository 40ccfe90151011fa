"""The page on which adapters that were trained elsewhere are taken in, and listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import Response
from sqlmodel import Session, col, select

from app.core.adapters.submit import queue_adapter, queue_local_adapter
from app.core.datasets.incoming import IncomingFile
from app.core.errors import Conflict, Fault, InvalidInput
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind
from app.core.models.models import ModelStatus
from app.core.models.registry import list_models
from app.core.settings import Settings
from app.web.dependencies import DatabaseDep, FolderDep, SessionDep, SettingsDep
from app.web.templating import redirect, render, render_region
from app.web.uploads import StoringRoute

router = APIRouter(include_in_schema=False, route_class=StoringRoute)

_LISTED = 50


@router.get("/adapters")
def show_adapters(request: Request, session: SessionDep, settings: SettingsDep, base_model: str = "") -> Response:
    """The form, and the adapters that were taken in so far."""
    return render(request, "adapters/list.html", _context(session, settings, {"base_model": base_model}))


@router.post("/adapters")
def import_adapter(
    request: Request,
    database: DatabaseDep,
    folder: FolderDep,
    settings: SettingsDep,
    file: Annotated[UploadFile | None, File()] = None,
    path: Annotated[str, Form()] = "",
    base_model: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
) -> Response:
    """Queue the import of a zip, or of a folder of this machine, and show its job; else the form says what is wrong."""
    sent = file is not None and bool(file.filename)
    try:
        if sent == bool(path.strip()):
            raise InvalidInput("Choose a zip, or give a folder: one of the two.", field="file")
        with database.write() as session:
            if file is not None and sent:
                job = queue_adapter(session, folder, cast(IncomingFile, file.file), base_model, name.strip() or None)
            else:
                job = queue_local_adapter(session, path, settings.local_roots, base_model, name.strip() or None)
    except (InvalidInput, Conflict) as error:
        typed = {"path": path, "base_model": base_model, "name": name}
        with database.read() as session:
            context = _context(session, settings, typed, _faults(error))
        return render_region(request, "adapters/_form.html", "adapters/list.html", context, 422)
    return redirect(request, request.app.url_path_for("show_job", job_id=job.key))


def _context(
    session: Session, settings: Settings, typed: Mapping[str, str], faults: Sequence[Fault] = ()
) -> dict[str, Any]:
    imported = select(Job).where(Job.kind == JobKind.ADAPTER).order_by(col(Job.id).desc()).limit(_LISTED)
    return {
        "models": [model.name for model in list_models(session) if model.status == ModelStatus.READY],
        "adapters": session.exec(imported).all(),
        "typed": typed,
        "faults": faults,
        "local_roots": [str(root) for root in settings.local_roots],
        "max_bytes": settings.max_upload_bytes,
    }


def _faults(error: InvalidInput | Conflict) -> Sequence[Fault]:
    if isinstance(error, InvalidInput):
        return error.faults
    return [Fault(error.field or "name", error.message, error.advice)]
