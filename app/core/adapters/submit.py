"""Queue the import of an adapter that was trained elsewhere."""

from __future__ import annotations

import time

from sqlmodel import Session

from app.core.datasets.incoming import IncomingFile
from app.core.errors import Conflict, Fault, InvalidInput
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.status import JobKind
from app.core.models.models import ModelStatus
from app.core.models.registry import find_model, list_models
from app.core.names import clean_name
from app.core.paths import DataFolder

INCOMING = "uploaded"  # folder below the job's own, until the adapter is taken in


def queue_adapter(
    session: Session, folder: DataFolder, file: IncomingFile, base_model: str, name: str | None = None
) -> Job:
    """Take the received zip into the folder of a new job. Raises: InvalidInput on `base_model`, Conflict."""
    model = find_model(session, base_model)
    if model is None:
        names = ", ".join(each.name for each in list_models(session)) or "none yet"
        raise InvalidInput([Fault("base_model", f"unknown base model {base_model!r}", f"Registered: {names}.")])
    if model.status != ModelStatus.READY:
        raise Conflict(f"{model.name} is {model.status}.", advice="Import the adapter once it is ready.")
    if not file.bytes:
        raise InvalidInput("The file is empty.", field="file")
    job = Job(
        name=clean_name(name or f"adapter on {model.name}", "job"),
        kind=JobKind.ADAPTER,
        spec={"base_model": model.name, "method": "lora", "task": "sft"},
        base_model_id=model.id,
        created_at=time.time(),
    )
    enqueue(session, job)
    file.finish()
    place = folder.job(job.key) / INCOMING
    place.parent.mkdir(mode=0o700, parents=True)
    file.folder.rename(place)
    return job
