"""One model's page, with the code that comes with it; admins allow that code there, and take it back."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.core.errors import Conflict, InvalidInput
from app.core.models.code_view import CodeView, readable, view_code
from app.core.models.consent import allow_code, withdraw_consent
from app.core.models.registry import get_model_by_id
from app.core.paths import DataFolder
from app.web.dependencies import DatabaseDep, FolderDep, SessionDep
from app.web.identities import identity_of
from app.web.templating import redirect, render

router = APIRouter(include_in_schema=False)


@router.get("/models/{model_id}")
def show_model(request: Request, model_id: int, session: SessionDep, folder: FolderDep) -> Response:
    """What is known of the model, and its code. Raises: NotFound."""
    return _page(request, session, folder, model_id)


@router.post("/models/{model_id}/code/{sha256}/allow")
def allow_model_code(
    request: Request, model_id: int, sha256: str, database: DatabaseDep, folder: FolderDep
) -> Response:
    """Allow the code of this hash; where it is another by now, the page says so. Raises: NotFound."""
    try:
        with database.write() as session:
            allow_code(session, folder, get_model_by_id(session, model_id), sha256, identity_of(request).label)
    except (Conflict, InvalidInput) as error:
        with database.read() as session:
            return _page(request, session, folder, model_id, error)
    return redirect(request, request.app.url_path_for("show_model", model_id=model_id))


@router.post("/models/{model_id}/code/{sha256}/withdraw")
def withdraw_model_code(request: Request, model_id: int, sha256: str, database: DatabaseDep) -> Response:
    """No job loads the code from now on. Raises: NotFound, Conflict."""
    with database.write() as session:
        withdraw_consent(session, get_model_by_id(session, model_id), sha256, identity_of(request).label)
    return redirect(request, request.app.url_path_for("show_model", model_id=model_id))


def _page(
    request: Request, session: Session, folder: DataFolder, model_id: int, fault: Conflict | InvalidInput | None = None
) -> Response:
    model = get_model_by_id(session, model_id)
    code, refused = CodeView(needed=True), fault
    try:
        code = view_code(session, folder, model)
    except InvalidInput as error:
        refused = refused or error
    context = {"model": model, "code": code, "fault": refused, "readable": readable}
    return render(request, "base_models/show.html", context, 200 if fault is None else 409)
