"""A first start registers the demo once; the demo job is queued once at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlmodel import select

from app.core import first_run
from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.datasets.store import add_file
from app.core.demo import DEMO_DATASET_NAME, DEMO_MODEL_NAME
from app.core.errors import InvalidInput
from app.core.first_run import DEMO_JOB_NAME, queue_demo, register_demo
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from tests.conftest import write_dataset


@pytest.fixture(autouse=True)
def _package_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(first_run, "find_demo_gguf", lambda: tmp_path / "demo.gguf")


def _registered(database: Database) -> tuple[list[str], list[str], list[str]]:
    with database.read() as session:
        return (
            [dataset.name for dataset in session.exec(select(Dataset))],
            [model.name for model in session.exec(select(BaseModel))],
            [job.name for job in session.exec(select(Job))],
        )


def test_the_demo_is_registered_by_name_at_once(database: Database, folder: DataFolder) -> None:
    register_demo(database, folder)
    assert _registered(database) == ([DEMO_DATASET_NAME], [DEMO_MODEL_NAME], [f"import {DEMO_MODEL_NAME}"])
    with database.read() as session:
        (job,) = session.exec(select(Job))
        (model,) = session.exec(select(BaseModel))
        assert (job.kind, job.spec, model.status) == (JobKind.IMPORT, {"kind": "demo"}, ModelStatus.IMPORTING)


def test_another_start_changes_nothing(database: Database, folder: DataFolder) -> None:
    register_demo(database, folder)
    first = _registered(database)
    register_demo(database, folder)
    assert _registered(database) == first


def test_two_processes_may_start_at_once(database: Database, folder: DataFolder) -> None:
    threads = [threading.Thread(target=register_demo, args=(database, folder)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _registered(database) == ([DEMO_DATASET_NAME], [DEMO_MODEL_NAME], [f"import {DEMO_MODEL_NAME}"])


def test_where_something_is_registered_nothing_is_added(database: Database, folder: DataFolder, tmp_path: Path) -> None:
    with database.write() as session:
        add_file(session, folder, write_dataset(tmp_path / "mine.jsonl"))
        session.add(BaseModel(name="mine", created_at=0))
    register_demo(database, folder)
    assert _registered(database) == (["mine"], ["mine"], [])


def test_without_the_models_package_there_is_only_the_dataset(
    database: Database, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_run, "find_demo_gguf", lambda: None)
    register_demo(database, folder)
    assert _registered(database) == ([DEMO_DATASET_NAME], [], [])
    with pytest.raises(InvalidInput, match=f"unknown base model '{DEMO_MODEL_NAME}'"):
        queue_demo(database)


def test_the_demo_job_is_queued_once_until_it_has_ended(database: Database, folder: DataFolder) -> None:
    register_demo(database, folder)
    first = queue_demo(database)
    assert first.name == DEMO_JOB_NAME
    assert queue_demo(database).id == first.id
    with database.write() as session:
        queue.request_cancel(session, queue.get_job(session, first.key))
    assert queue_demo(database).id != first.id


def test_a_cancelled_import_of_the_demo_model_is_repeated_with_the_demo_job(
    database: Database, folder: DataFolder
) -> None:
    register_demo(database, folder)
    with database.write() as session:
        (importing,) = session.exec(select(Job)).all()
        queue.request_cancel(session, importing)
    with database.read() as session:
        assert session.exec(select(BaseModel)).one().status == ModelStatus.FAILED
    job = queue_demo(database)
    _, models, jobs = _registered(database)
    assert (models, jobs) == ([DEMO_MODEL_NAME], [f"import {DEMO_MODEL_NAME}"] * 2 + [job.name])
    with database.read() as session:
        assert session.exec(select(BaseModel)).one().status == ModelStatus.IMPORTING
