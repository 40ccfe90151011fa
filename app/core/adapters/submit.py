"""Queue the import of an adapter that was trained elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from sqlmodel import Session

from app.core.datasets.incoming import IncomingFile
from app.core.errors import Conflict, Fault, InvalidInput
from app.core.jobs.inputs import describe_files
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.status import JobKind
from app.core.models.models import BaseModel, ModelStatus
from app.core.models.registry import allowed_path, find_model, list_models
from app.core.names import clean_name
from app.core.paths import DataFolder

INCOMING = "uploaded"  # folder below the job's own, until the adapter is taken in


def queue_adapter(
    session: Session, folder: DataFolder, file: IncomingFile, base_model: str, name: str | None = None
) -> Job:
    """Take the received zip into the folder of a new job. Raises: InvalidInput on `base_model`, Conflict."""
    model = _ready_model(session, base_model)
    if not file.bytes:
        raise InvalidInput("The file is empty.", field="file")
    job = _queue(session, model, name)
    file.finish()
    place = folder.job(job.key) / INCOMING
    place.parent.mkdir(mode=0o700, parents=True)
    file.folder.rename(place)
    return job


def queue_local_adapter(
    session: Session, path: str, local_roots: Sequence[Path], base_model: str, name: str | None = None
) -> Job:
    """Take in a folder of this machine, or a zip, that lies under an allowed root; it is copied, never changed.

    Raises: InvalidInput on `path` and `base_model`, Conflict.
    """
    model = _ready_model(session, base_model)
    return _queue(session, model, name, path=str(allowed_path(path, local_roots)))


def _ready_model(session: Session, base_model: str) -> BaseModel:
    """Raises: InvalidInput, Conflict."""
    model = find_model(session, base_model)
    if model is None:
        names = ", ".join(each.name for each in list_models(session)) or "none yet"
        raise InvalidInput([Fault("base_model", f"unknown base model {base_model!r}", f"Registered: {names}.")])
    if model.status != ModelStatus.READY:
        advice = "Import the adapter once it is ready."
        raise Conflict(f"{model.name} is {model.status}.", advice=advice, field="base_model")
    return model


def _queue(session: Session, model: BaseModel, name: str | None, **more: str) -> Job:
    job = Job(
        name=clean_name(name or f"adapter on {model.name}", "job"),
        kind=JobKind.ADAPTER,
        spec={"base_model": model.name, "method": "lora", "task": "sft", **more},
        base_model_id=model.id,
        inputs={"model_files": describe_files(Path(model.path))} if model.path else None,
        created_at=time.time(),
    )
    return enqueue(session, job)
