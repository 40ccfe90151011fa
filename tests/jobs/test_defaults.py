"""What the new-job form has chosen before a person chooses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlmodel import select

from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.datasets.store import add_file
from app.core.demo import DEMO_DATASET_NAME, DEMO_MODEL_NAME
from app.core.jobs.models import Job
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from app.jobs.defaults import default_references
from tests.conftest import LINEAR_MODULES, write_dataset


def _add_model(database: Database, name: str) -> None:
    with database.write() as session:
        model = BaseModel(name=name, status=ModelStatus.READY, path="x", created_at=0.0)
        model.linear_modules = LINEAR_MODULES
        session.add(model)


def _set_status(database: Database, name: str, status: ModelStatus) -> None:
    with database.write() as session:
        session.exec(select(BaseModel).where(BaseModel.name == name)).one().status = status


def _defaults(database: Database) -> dict[str, str]:
    with database.read() as session:
        return default_references(session)


def test_without_jobs_the_demo_is_chosen_where_it_is_registered(
    database: Database, folder: DataFolder, tmp_path: Path, registered: tuple[BaseModel, Dataset]
) -> None:
    assert _defaults(database) == {}
    _add_model(database, DEMO_MODEL_NAME)
    with database.write() as session:
        add_file(session, folder, write_dataset(tmp_path / "a.jsonl"), DEMO_DATASET_NAME)
    assert _defaults(database) == {"base_model": DEMO_MODEL_NAME, "dataset": DEMO_DATASET_NAME}
    _set_status(database, DEMO_MODEL_NAME, ModelStatus.FAILED)
    assert _defaults(database) == {"dataset": DEMO_DATASET_NAME}


def test_what_was_trained_on_last_is_chosen(
    database: Database, folder: DataFolder, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    _add_model(database, DEMO_MODEL_NAME)
    _add_model(database, "a-first-by-name")
    make_job(base_model="a-first-by-name")
    make_job(base_model="tiny")
    assert _defaults(database) == {"base_model": "tiny", "dataset": "small"}
    _set_status(database, "tiny", ModelStatus.FAILED)
    assert _defaults(database) == {"base_model": "a-first-by-name", "dataset": "small"}


def test_the_task_is_one_that_learns_from_the_rows(
    database: Database, folder: DataFolder, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    make_job()
    assert "task" not in _defaults(database), "conversations are what the spec's own default learns from"
    rows = tmp_path / "stories.jsonl"
    rows.write_text('{"text": "Once."}\n{"text": "Twice."}\n', encoding="utf-8")
    with database.write() as session:
        add_file(session, folder, rows, "stories")
    make_job(dataset="stories", task="text")
    assert _defaults(database) == {"base_model": "tiny", "dataset": "stories", "task": "text"}
