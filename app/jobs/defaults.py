"""What a new job starts from: the base model and the dataset trained on last, else the demo's, and a task for it."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session, col, select

from app.core.datasets.models import Dataset
from app.core.datasets.store import find_dataset
from app.core.demo import DEMO_DATASET_NAME, DEMO_MODEL_NAME
from app.core.jobs.models import Job
from app.core.jobs.spec import TrainingSpec
from app.core.jobs.status import JobKind
from app.core.jobs.submit import KIND_OF_TASK
from app.core.models.models import BaseModel, ModelStatus
from app.core.models.registry import find_model


def default_references(session: Session) -> dict[str, str]:
    """{base_model, dataset} by name, and the `task` of the dataset's rows where that is not the spec's own default.

    What is nowhere to be had is left out.
    """
    model, dataset = _base_model(session), _dataset(session)
    names = {"base_model": model.name if model else None, "dataset": dataset.name if dataset else None}
    usual = TrainingSpec.model_fields["task"].default
    fitting = next((task for task, kind in KIND_OF_TASK.items() if dataset and kind == dataset.kind), usual)
    return {name: value for name, value in (names | {"task": fitting if fitting != usual else None}).items() if value}


def model_defaults(session: Session, name: str) -> dict[str, Any]:
    """What the fields start from where the spec's own default would not suit this model."""
    model, usual = find_model(session, name) if name else None, TrainingSpec.model_fields["max_length"].default
    if model is None or model.max_length is None or model.max_length >= usual:
        return {}
    return {"max_length": model.max_length}


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
