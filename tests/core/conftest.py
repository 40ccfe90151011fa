"""A migrated database by copying one: the migrations themselves are tested in test_database.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.artifacts.manifest import META, hash_file
from app.core.artifacts.store import record
from app.core.database import Database
from app.core.datasets.store import add_file
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind
from app.core.metrics.store import put_metrics
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from app.core.settings import Settings
from tests.conftest import write_dataset


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database file of this version's schema."""
    home = tmp_path_factory.mktemp("migrated")
    database = Database(f"sqlite:///{home / 'loradeck.db'}")
    database.migrate(home)
    database.engine.dispose()
    return home / "loradeck.db"


@pytest.fixture
def database(settings: Settings, folder: DataFolder, migrated_file: Path) -> Iterator[Database]:
    """A migrated, empty database in the data folder."""
    shutil.copy(migrated_file, folder.home / "loradeck.db")
    database = Database(settings.effective_database_url)
    yield database
    database.engine.dispose()


def publish(folder: Path, files: dict[str, bytes]) -> Path:
    """A finished folder with its `meta.json`."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    listed = [{"path": n, "bytes": len(c), "sha256": hash_file(folder / n)} for n, c in files.items()]
    (folder / META).write_text(json.dumps({"files": listed}))
    return folder


@pytest.fixture
def filled(database: Database, folder: DataFolder, tmp_path: Path) -> Database:
    """A base model, a dataset, a job with a log, a receipt, metrics and an adapter."""
    weights = tmp_path / "tiny"
    weights.mkdir()
    with database.write() as session:
        session.add(BaseModel(name="tiny", status=ModelStatus.READY, path=str(weights), bytes=9, created_at=0))
        dataset = add_file(session, folder, write_dataset(tmp_path / "small.jsonl"), "small")
        job = queue.enqueue(session, Job(name="j", kind=JobKind.TRAIN, dataset_id=dataset.id, created_at=0))
        place = folder.job(job.key)
        publish(place / "adapter", {"adapter_model.safetensors": b"\1" * 5000, "README.md": b"card"})
        (place / "train.log").write_text("one line\n")
        (place / "receipt.json").write_text('{"format": 1}')
        record(session, folder, job.key, None, {"kind": "adapter", "path": "adapter"})
        for step in range(50):
            put_metrics(session, job.key, step, 0.0, {"loss": 1 / (step + 1)})
    return database
