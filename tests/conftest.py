"""Fixtures that many tests share: a data folder, a migrated database, the web application, jobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session

from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.datasets.store import add_file
from app.core.jobs.models import Job
from app.core.jobs.spec import parse_spec
from app.core.jobs.submit import submit_training
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from app.core.settings import Settings
from app.main import create_app
from tests.data_lane import DataLane
from tests.forked_children import ForkedChildren

LINEAR_MODULES = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the developer's environment nor a .env file reaches a test."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"LORADECK_{name.upper()}", raising=False)
    monkeypatch.setenv("LORADECK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LORADECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LORADECK_PORT", "0")
    monkeypatch.setenv("LORADECK_AUTH", "off")  # tests/security has its own
    monkeypatch.setitem(Settings.model_config, "env_file", None)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty data folder."""
    return Settings(home=tmp_path / "home", cache=tmp_path / "cache", local_roots=[tmp_path])


@pytest.fixture
def folder(settings: Settings) -> DataFolder:
    """The data folder, made."""
    return DataFolder(settings.home).create()


@pytest.fixture
def database(settings: Settings, folder: DataFolder) -> Iterator[Database]:
    """A migrated, empty database in the data folder."""
    database = Database(settings.effective_database_url)
    database.migrate(folder.backups)
    yield database
    database.engine.dispose()


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """A write session, committed at the end."""
    with database.write() as session:
        yield session


def write_dataset(path: Path, rows: int = 4) -> Path:
    """A small alpaca file."""
    lines = [{"instruction": f"Say {n}.", "input": "", "output": f"It is {n}."} for n in range(rows)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def registered(database: Database, folder: DataFolder, tmp_path: Path) -> tuple[BaseModel, Dataset]:
    """A base model (`tiny`, its folder empty) and a dataset (`small`) to queue jobs on."""
    weights = tmp_path / "tiny"
    weights.mkdir()
    with database.write() as session:
        model = BaseModel(name="tiny", status=ModelStatus.READY, path=str(weights), created_at=0.0)
        model.linear_modules = LINEAR_MODULES
        session.add(model)
        dataset = add_file(session, folder, write_dataset(tmp_path / "small.jsonl"), "small")
    return model, dataset


@pytest.fixture
def make_job(database: Database, registered: tuple[BaseModel, Dataset]) -> Callable[..., Job]:
    """Queue a training job; keyword arguments override the spec."""

    def make(name: str | None = None, **overrides: Any) -> Job:
        spec = parse_spec({"base_model": "tiny", "dataset": "small", **overrides})
        with database.write() as session:
            return submit_training(session, spec, name)

    return make


@pytest.fixture(scope="session")
def forked_children() -> Iterator[ForkedChildren]:
    """Children that start soon, for all data lanes."""
    children = ForkedChildren()
    yield children
    children.close()


@pytest.fixture
def data_lane(
    settings: Settings, database: Database, forked_children: ForkedChildren, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DataLane]:
    """The worker's part for datasets: what is uploaded is checked by a real child, and waited for on a busy box too."""
    monkeypatch.setattr("app.datasets.router.FORM_WAIT_SECONDS", 30.0)
    monkeypatch.setattr("app.datasets.uploading.NO_WORKER_SECONDS", 30.0)
    with DataLane(settings.home, forked_children) as lane:
        yield lane


@pytest.fixture
def client(settings: Settings, registered: tuple[BaseModel, Dataset]) -> Iterator[TestClient]:
    """The web application on the data folder, asked as the command asks: with the API token."""
    app = create_app(settings)
    headers = {"Authorization": f"Bearer {app.state.token}"}
    with TestClient(app, base_url="http://127.0.0.1", headers=headers) as client:
        yield client
