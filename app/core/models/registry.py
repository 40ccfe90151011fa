"""Register and find base models."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from sqlmodel import Session, col, select

from app.core.demo import find_demo_gguf
from app.core.errors import Conflict, Fault, InvalidInput, NotFound
from app.core.jobs.imports import queue_import
from app.core.models.gguf_facts import inspect_gguf
from app.core.models.inspect import ModelFacts, inspect_folder
from app.core.models.models import BaseModel, ModelStatus
from app.core.names import clean_name, is_hub_id, name_taken
from app.core.table import MAX_ID, as_id

logger = logging.getLogger(__name__)


def list_models(session: Session) -> Sequence[BaseModel]:
    """All base models by name."""
    return session.exec(select(BaseModel).order_by(col(BaseModel.name))).all()


def find_model(session: Session, reference: str) -> BaseModel | None:
    """By name, by id, or by the folder, file or hub id it came from."""
    by_name = session.exec(select(BaseModel).where(BaseModel.name == reference)).first()
    number = as_id(reference)
    if by_name is None and number is not None:
        return session.get(BaseModel, number)
    if by_name is None:
        return next((m for m in list_models(session) if reference in _origins(m)), None)
    return by_name


def _origins(model: BaseModel) -> tuple[str | None, ...]:
    return model.path, model.source.get("path"), model.source.get("hub_id")


def get_model(session: Session, reference: str) -> BaseModel:
    """Raises: NotFound that names what there is."""
    model = find_model(session, reference)
    if model is None:
        raise NotFound(f"There is no base model {reference!r}.", advice=f"Registered: {_names(session)}.")
    return model


def get_model_by_id(session: Session, model_id: int) -> BaseModel:
    """Raises: NotFound."""
    model = session.get(BaseModel, model_id) if 0 < model_id <= MAX_ID else None
    if model is None:
        raise NotFound(f"There is no base model {model_id}.")
    return model


def add_model(session: Session, reference: str, local_roots: Sequence[Path], name: str | None = None) -> BaseModel:
    """Register a local folder or GGUF file (under an allowed root), or a hub id.

    A folder is ready at once; a GGUF file and a hub id are made ready by an import job. The name, file or hub id of a
    model whose import failed imports it again. Raises: InvalidInput; Conflict on `name` where it is taken.
    """
    known = find_model(session, reference)
    if known is not None and known.status == ModelStatus.FAILED:
        return import_again(session, known)
    path = _local_path(reference)
    if path is not None:
        return _add_local(session, _allowed(path, local_roots), name)
    if not is_hub_id(reference):
        raise InvalidInput(f"{reference!r} is neither a folder that exists nor a hub id (owner/name).", field="path")
    return add_imported(session, name or reference.rpartition("/")[2].lower(), {"kind": "hub", "hub_id": reference})


def add_imported(session: Session, name: str, source: dict[str, str]) -> BaseModel:
    """Register a model by name now and queue the job that makes it ready. Raises: InvalidInput, Conflict."""
    model = BaseModel(name=name, source=source, created_at=time.time())
    _set_known_facts(model)
    _store(session, model)
    queue_import(session, model.name, model.source, base_model_id=model.key)
    return model


def import_again(session: Session, model: BaseModel) -> BaseModel:
    """Queue the import of a model whose last one failed or was cancelled.

    Raises: Conflict for any other; InvalidInput where its GGUF file is damaged.
    """
    if model.status != ModelStatus.FAILED:
        raise Conflict(f"{model.name} is {model.status}; only a model whose import failed is imported again.")
    _set_known_facts(model)
    model.status, model.error = ModelStatus.IMPORTING, None
    session.add(model)
    queue_import(session, model.name, model.source, base_model_id=model.key)
    return model


def _set_known_facts(model: BaseModel) -> None:
    """What a GGUF file tells before it is converted. Raises: InvalidInput where it is damaged."""
    is_demo = model.source.get("kind") == "demo"
    file = find_demo_gguf() if is_demo else _gguf_file(model)
    if file is None:
        return
    try:
        facts = inspect_gguf(file)
    except InvalidInput as error:
        if not is_demo:
            raise
        logger.error("%s", error)  # a broken demo must not keep the dashboard from starting: its import will fail
        return
    for field, value in facts.to_json().items():
        setattr(model, field, value)


def _gguf_file(model: BaseModel) -> Path | None:
    return Path(model.source["path"]) if model.source.get("kind") == "gguf" else None


def set_facts(model: BaseModel, facts: ModelFacts) -> None:
    """The model is ready, and this is what it holds."""
    for field, value in facts.to_json().items():
        setattr(model, field, value)
    model.status, model.error = ModelStatus.READY, None


def _add_local(session: Session, path: Path, name: str | None) -> BaseModel:
    if path.suffix == ".gguf":
        return add_imported(session, name or path.stem.lower(), {"kind": "gguf", "path": str(path)})
    facts = inspect_folder(path)
    source = {"kind": "folder", "path": str(path)}
    model = BaseModel(name=name or path.name, source=source, created_at=time.time())
    set_facts(model, facts)
    return _store(session, model)


def _local_path(reference: str) -> Path | None:
    """The path where one is meant, None for what may be a hub id. Raises: InvalidInput for what can be no path."""
    try:
        path = Path(reference).expanduser()
        path.resolve()  # refuses NUL characters
        is_meant = path.is_absolute() or reference.startswith("./") or ".." in path.parts
        return path if is_meant or path.exists() else None
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidInput(f"{reference[:200]!r} is not a usable path: {error}", field="path") from error


def allowed_path(reference: str, roots: Sequence[Path]) -> Path:
    """What a user names on this machine, where it lies under one of the roots. Raises: InvalidInput on `path`."""
    if not reference.strip():
        raise InvalidInput("Give a folder or a zip of this machine.", field="path")
    path = _local_path(reference.strip())
    if path is None:
        raise InvalidInput(f"{reference!r:.200} does not exist.", field="path")
    return _allowed(path, roots)


def _allowed(path: Path, roots: Sequence[Path]) -> Path:
    real = path.resolve()
    if not any(real.is_relative_to(root.expanduser().resolve()) for root in roots):
        raise InvalidInput(
            [
                Fault(
                    "path",
                    f"{path} is not under an allowed folder.",
                    advice="Name its folder in LORADECK_LOCAL_ROOTS (a JSON list) and start the dashboard again.",
                )
            ]
        )
    if not real.exists():
        raise InvalidInput(f"{path} does not exist.", field="path")
    return real


def _store(session: Session, model: BaseModel) -> BaseModel:
    model.name = clean_name(model.name, "base model")
    if session.exec(select(BaseModel).where(BaseModel.name == model.name)).first():
        raise name_taken(model.name, "base model")
    session.add(model)
    session.flush()
    return model


def _names(session: Session) -> str:
    return ", ".join(model.name for model in list_models(session)) or "none yet"
