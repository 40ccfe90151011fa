"""`loradeck datasets add` with a dataset of the hub: it waits for the import, whose worker is played here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from app.core.database import Database
from app.core.datasets.hub import set_facts
from app.core.datasets.models import Dataset
from app.core.jobs.models import Job
from app.core.jobs.queue import advance, request_cancel
from app.core.jobs.status import JobKind, JobStatus
from tests.cli.conftest import Command
from tests.core.datasets.test_hub import FACTS

Import = Callable[..., None]
FILES = [{"path": "train.jsonl", "bytes": 1, "sha256": "d" * 64, "rows": 7}]


@pytest.fixture(autouse=True)
def _leave_no_import(database: Database) -> Iterator[None]:
    """Imports that nobody plays would hold up those of later tests."""
    yield
    with database.write() as session:
        for job in session.exec(select(Job).where(Job.kind == JobKind.IMPORT, Job.status == JobStatus.QUEUED)).all():
            request_cancel(session, job)


@pytest.fixture
def imports(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Import]:
    """Play the worker: once the dataset is there, its import ends so."""
    monkeypatch.setattr("app.cli.datasets._POLL_SECONDS", 0.02)
    workers: list[threading.Thread] = []

    def work(name: str, error: dict[str, Any] | None) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with database.write() as session:
                dataset = session.exec(select(Dataset).where(Dataset.name == name)).first()
                if dataset is not None:
                    job = session.exec(select(Job).where(Job.dataset_id == dataset.id)).one()
                    _end(session, job, dataset, error)
                    return
            time.sleep(0.02)

    def imports(name: str, error: dict[str, Any] | None = None) -> None:
        workers.append(threading.Thread(target=work, args=(name, error)))
        workers[-1].start()

    yield imports
    for worker in workers:
        worker.join()


def _end(session: Any, job: Job, dataset: Dataset, error: dict[str, Any] | None) -> None:
    job = advance(session, job, JobStatus.STARTING)
    if error is None:
        set_facts(dataset, {**FACTS, "source": {**FACTS["source"], "files": FILES}})
    advance(session, job, JobStatus.FAILED if error else JobStatus.COMPLETED, error=error)


def test_it_waits_until_the_dataset_is_ready(loradeck: Command, imports: Import) -> None:
    imports("ready")
    result = loradeck("datasets", "add", "owner/Ready", "--split", "train", "--column", "chosen=good", "--json")
    assert result.code == 0, result.err
    assert (result.json["status"], result.json["rows"], result.json["format"]) == ("ready", 7, "preference")
    assert result.json["source"]["files"] == FILES
    assert result.err == "ready is imported by a job; --no-wait does not wait for it.\n"


def test_people_see_where_it_came_from(loradeck: Command, imports: Import) -> None:
    imports("shown")
    shown = loradeck("datasets", "add", "owner/shown").out
    assert f"revision: {'c' * 40}" in shown
    assert "rows: 7" in shown
    assert "train.jsonl" not in shown


def test_a_failed_import_is_exit_code_1_with_the_reason(loradeck: Command, imports: Import) -> None:
    imports("failing", {"kind": "x", "message": "It has two splits: a, b.", "advice": "Name one."})
    result = loradeck("datasets", "add", "owner/failing", "--json")
    assert result.code == 1
    assert result.json == {"error": {"code": "dataset_import", "message": "It has two splits: a, b. Name one."}}
    assert "error: It has two splits: a, b. Name one.\n" in result.err
    listed = loradeck("datasets", "list").out
    assert "failed" in listed[listed.index("failing") :]


def test_it_need_not_be_waited_for(loradeck: Command) -> None:
    result = loradeck("datasets", "add", "owner/later", "--no-wait", "--json")
    assert (result.code, result.err) == (0, "")
    assert (result.json["status"], result.json["rows"]) == ("importing", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rows.jsonl", "--split", "train"], "error: split: is for datasets of the hub; this is a file\n"),
        (["gone/rows.jsonl"], "error: file: gone/rows.jsonl is not a file.\n"),
        (["nothing"], "error: file: nothing is not a file.\n"),
        (["folder"], "error: file: folder is not a file.\n"),
        (["owner/x", "--column", "colour=x"], "error: column: 'colour=x' maps to no known field"),
        (["owner/x", "--config", "a\tb"], "error: config: 'a\\tb' is not a config"),
    ],
)
def test_what_is_neither_a_file_nor_of_the_hub_is_refused(
    loradeck: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"prompt": "Q", "completion": "A"}\n')
    Path("folder").mkdir()
    refused = loradeck("datasets", "add", *arguments)
    assert refused.code == 2
    assert refused.err.startswith(message)
