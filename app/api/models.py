"""Base models: list, look, add; the code that comes with one."""

from __future__ import annotations

from fastapi import APIRouter, Request
from sqlmodel import Session

from app.api.schemas import AddModelIn, CodeConsentOut, CodeFileOut, ModelCodeOut, ModelOut
from app.core.models.code_view import readable, view_code
from app.core.models.consent import allow_code, withdraw_consent
from app.core.models.models import BaseModel
from app.core.models.registry import add_model, get_model, list_models
from app.core.paths import DataFolder
from app.web.dependencies import FolderDep, SessionDep, SettingsDep, WriteSessionDep
from app.web.identities import identity_of

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", name="api_list_models")
def list_all(session: SessionDep) -> list[ModelOut]:
    """All base models by name."""
    return [ModelOut.model_validate(model) for model in list_models(session)]


@router.post("", status_code=201, name="api_add_model")
def add(body: AddModelIn, session: WriteSessionDep, settings: SettingsDep) -> ModelOut:
    """Register a local folder, a GGUF file or a hub id; the last two are made ready by a job."""
    return ModelOut.model_validate(add_model(session, body.path, settings.local_roots, body.name))


@router.get("/{reference}", name="api_show_model")
def show(reference: str, session: SessionDep) -> ModelOut:
    """One model, by id or name."""
    return ModelOut.model_validate(get_model(session, reference))


@router.get("/{reference}/code", name="api_show_model_code")
def show_code(reference: str, session: SessionDep, folder: FolderDep) -> ModelCodeOut:
    """The Python code that comes with a model, and whether an admin has allowed it."""
    return _code(session, folder, get_model(session, reference))


@router.put("/{reference}/code/{sha256}", name="api_allow_model_code")
def allow(request: Request, reference: str, sha256: str, session: WriteSessionDep, folder: FolderDep) -> ModelCodeOut:
    """Allow just the code that has this hash; jobs then run it with all that the worker may do."""
    model = get_model(session, reference)
    allow_code(session, folder, model, sha256, identity_of(request).label)
    return _code(session, folder, model)


@router.delete("/{reference}/code/{sha256}", name="api_withdraw_model_code")
def withdraw(
    request: Request, reference: str, sha256: str, session: WriteSessionDep, folder: FolderDep
) -> ModelCodeOut:
    """No job loads the code from now on."""
    model = get_model(session, reference)
    withdraw_consent(session, model, sha256, identity_of(request).label)
    return _code(session, folder, model)


def _code(session: Session, folder: DataFolder, model: BaseModel) -> ModelCodeOut:
    view = view_code(session, folder, model)
    return ModelCodeOut(
        needed=view.needed,
        sha256=view.sha256,
        revision=view.revision,
        files=[CodeFileOut(path=f.path, bytes=len(f.content), sha256=f.sha256, text=readable(f)) for f in view.files],
        allowed=view.allowed,
        change=view.change,
        consents=[CodeConsentOut.model_validate(each) for each in view.consents],
    )
