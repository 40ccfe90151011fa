"""Pages of base models: list, add, import again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from sqlmodel import Session, col, select

from app.core.errors import Conflict, Fault, InvalidInput
from app.core.events.log import latest_id
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind
from app.core.models.models import ModelStatus
from app.core.models.registry import add_model, get_model_by_id, import_again, list_models
from app.web.dependencies import DatabaseDep, SessionDep, SettingsDep
from app.web.templating import redirect, render, render_region, wants_partial

router = APIRouter(include_in_schema=False)


@router.get("/models")
def show_models(request: Request, session: SessionDep, settings: SettingsDep) -> Response:
    """The registered base models and the form that adds one."""
    context = {**_list_context(session), **_form_context(settings, "", "")}
    return render(request, "base_models/list.html", context)


@router.get("/models/list")
def show_model_list(request: Request, session: SessionDep) -> Response:
    """The region with the registered base models."""
    return render(request, "base_models/_list.html", _list_context(session))


@router.post("/models")
def create_model(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    path: Annotated[str, Form()] = "",
    name: Annotated[str, Form(max_length=120)] = "",
) -> Response:
    """Register a local folder, a GGUF file or a hub id; where that is not possible, the form again."""
    try:
        if not path.strip():
            raise InvalidInput("Give a folder or a hub id.", field="path")
        with database.write() as session:
            add_model(session, path.strip(), settings.local_roots, name.strip() or None)
    except (InvalidInput, Conflict) as error:
        with database.read() as session:
            context = {**_list_context(session), **_form_context(settings, path, name, _faults(error))}
        return render_region(request, "base_models/_form.html", "base_models/list.html", context, 422)
    return redirect(request, request.app.url_path_for("show_models"))


@router.post("/models/{model_id}/import")
def import_model_again(request: Request, model_id: int, database: DatabaseDep, settings: SettingsDep) -> Response:
    """Queue the import of a model whose last one failed; where that is not possible, the list says why."""
    status_code = 200
    try:
        with database.write() as session:
            import_again(session, get_model_by_id(session, model_id))
    except InvalidInput as error:
        status_code = 422
        with database.write() as session:
            get_model_by_id(session, model_id).error = error.faults[0].message
    if status_code == 200 and not wants_partial(request):
        return redirect(request, request.app.url_path_for("show_models"))
    with database.read() as session:
        context = {**_list_context(session), **_form_context(settings, "", "")}
    return render_region(request, "base_models/_list.html", "base_models/list.html", context, status_code)


def _list_context(session: Session) -> dict[str, Any]:
    models = list_models(session)
    importing = [model.id for model in models if model.status == ModelStatus.IMPORTING]
    jobs = select(Job).where(Job.kind == JobKind.IMPORT, col(Job.base_model_id).in_(importing)).order_by(col(Job.id))
    by_model = {job.base_model_id: job for job in session.exec(jobs)}
    return {"models": models, "import_jobs": by_model, "importing": bool(importing), "after": latest_id(session)}


def _form_context(settings: SettingsDep, path: str, name: str, faults: Sequence[Fault] = ()) -> dict[str, Any]:
    return {"path": path, "name": name, "faults": faults, "local_roots": [str(root) for root in settings.local_roots]}


def _faults(error: InvalidInput | Conflict) -> Sequence[Fault]:
    return (
        error.faults if isinstance(error, InvalidInput) else [Fault(error.field or "path", error.message, error.advice)]
    )
