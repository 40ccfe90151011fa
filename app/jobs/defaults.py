"""Which base model and dataset a new job starts from: those trained on last, else the demo's."""

from __future__ import annotations

from sqlmodel import Session, col, select

from app.core.datasets.models import Dataset
from app.core.datasets.store import find_dataset
from app.core.demo import DEMO_DATASET_NAME, DEMO_MODEL_NAME
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind
from app.core.models.models import BaseModel, ModelStatus
from app.core.models.registry import find_model


def default_references(session: Session) -> dict[str, str]:
    """{base_model, dataset} by name; one that is nowhere to be had is left out."""
    found = {"base_model": _base_model(session), "dataset": _dataset(session)}
    return {field: row.name for field, row in found.items() if row is not None}


def _base_model(session: Session) -> BaseModel | None:
    trained = select(BaseModel).join(Job, col(Job.base_model_id) == BaseModel.id).where(Job.kind == JobKind.TRAIN)
    usable = trained.where(BaseModel.status != ModelStatus.FAILED)
    last = session.exec(usable.order_by(col(Job.id).desc()).limit(1)).first()
    demo = find_model(session, DEMO_MODEL_NAME) if last is None else None
    return demo if demo is not None and demo.status != ModelStatus.FAILED else last


def _dataset(session: Session) -> Dataset | None:
    trained = select(Dataset).join(Job, col(Job.dataset_id) == Dataset.id).where(Job.kind == JobKind.TRAIN)
    last = session.exec(trained.order_by(col(Job.id).desc()).limit(1)).first()
    return last or find_dataset(session, DEMO_DATASET_NAME)
