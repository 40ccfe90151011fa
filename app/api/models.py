"""Base models: list, look, add."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.schemas import AddModelIn, ModelOut
from app.core.models.registry import add_model, get_model, list_models
from app.web.dependencies import SessionDep, SettingsDep, WriteSessionDep

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
