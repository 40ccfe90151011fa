"""What an empty data folder is given: the demo dataset, and the demo model where its package is installed."""

from __future__ import annotations

from sqlmodel import col, select

from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.datasets.store import add_file
from app.core.demo import DEMO_DATASET_NAME, DEMO_MODEL_NAME, demo_dataset_file, demo_spec, find_demo_gguf
from app.core.jobs.models import Job
from app.core.jobs.status import ENDED
from app.core.jobs.submit import submit_training
from app.core.models.models import BaseModel, ModelStatus
from app.core.models.registry import add_imported, find_model, import_again
from app.core.paths import DataFolder

DEMO_JOB_NAME = "Demo: a ship's log"


def register_demo(database: Database, folder: DataFolder) -> None:
    """Done once per data folder, by whichever process starts first. The model's file is found by the worker."""
    with database.write() as session:
        if session.exec(select(Dataset.id).limit(1)).first() is None:
            add_file(session, folder, demo_dataset_file(), DEMO_DATASET_NAME)
        if session.exec(select(BaseModel.id).limit(1)).first() is None and find_demo_gguf() is not None:
            add_imported(session, DEMO_MODEL_NAME, {"kind": "demo"})


def queue_demo(database: Database) -> Job:
    """Queue the demo job; the one that waits or runs is returned instead. Raises: InvalidInput without its model.

    Where the demo model's import failed or was cancelled before, it is imported again.
    """
    with database.write() as session:
        model = find_model(session, DEMO_MODEL_NAME)
        if model is not None and model.status == ModelStatus.FAILED:
            import_again(session, model)
        pending = select(Job).where(Job.name == DEMO_JOB_NAME, col(Job.status).not_in(ENDED))
        return session.exec(pending).first() or submit_training(session, demo_spec(), DEMO_JOB_NAME)
