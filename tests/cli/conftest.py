"""The `loradeck` command against one real server; the worker's part is played by writes to the database."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app.cli import main
from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from tests.conftest import write_dataset
from tests.core.models.safetensors import write_model
from tests.data_lane import DataLane
from tests.forked_children import ForkedChildren
from tests.live_server import Served, serve_process


@dataclass(frozen=True, slots=True)
class Result:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document; anything beside it is an error."""
        return json.loads(self.out)


Command = Callable[..., Result]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A dashboard without a worker, with a base model `tiny` and a dataset `small`."""
    home = tmp_path_factory.mktemp("cli")
    roots = json.dumps([str(home)])
    with serve_process(home / "home", LORADECK_LOCAL_ROOTS=roots, LORADECK_MAX_UPLOAD_BYTES="100000") as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def data_lane(server: Served, forked_children: ForkedChildren) -> Iterator[DataLane]:
    """The worker's part for datasets."""
    with DataLane(server.home, forked_children) as lane:
        yield lane


@pytest.fixture
def loradeck(server: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command as its entry point does, in this process: starting Python takes longer than what is tested."""
    for name in ("LORADECK_HOME", "LORADECK_CACHE"):
        monkeypatch.setenv(name, server.environment[name])
    monkeypatch.setattr("app.cli.jobs._POLL_SECONDS", 0.02)
    clients: list[httpx.Client] = []

    def open_client(*arguments: Any, **options: Any) -> httpx.Client:
        """A command's connections end with its process, which here goes on."""
        clients.append(httpx.Client(*arguments, **options))
        return clients[-1]

    monkeypatch.setattr("app.cli.client.httpx", SimpleNamespace(**{**vars(httpx), "Client": open_client}))

    def run(*arguments: object) -> Result:
        monkeypatch.setattr("sys.argv", ["loradeck", *map(str, arguments)])
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code or 0
        for client in clients:
            client.close()
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def database(server: Served) -> Iterator[Database]:
    """The server's database, as the worker opens it."""
    database = Database(f"sqlite:///{server.home / 'loradeck.db'}")
    yield database
    database.engine.dispose()


@pytest.fixture(scope="session")
def prepared(server: Served) -> dict[str, Path]:
    """Files to register."""
    base = server.home.parent
    return {"model": write_model(base / "tiny"), "dataset": write_dataset(base / "small.jsonl")}


@pytest.fixture
def spec(loradeck: Command, prepared: dict[str, Path], tmp_path: Path) -> Path:
    """A job YAML on what is registered."""
    for command in (("models", "add", prepared["model"]), ("datasets", "add", prepared["dataset"])):
        assert loradeck(*command).code in (0, 1, 2)  # else another test has registered it
    path = tmp_path / "spec.yaml"
    path.write_text("base_model: tiny\ndataset: small\nr: 4\n")
    return path


@pytest.fixture
def submitted(loradeck: Command, spec: Path) -> dict[str, Any]:
    """A queued job."""
    result = loradeck("jobs", "submit", spec, "--json")
    assert result.code == 0, result.err
    return result.json


@pytest.fixture
def act(move: Callable[..., Job], database: Database) -> Iterator[Callable[..., None]]:
    """Play the worker beside a command that waits: move(…) as soon as the job is there."""
    workers: list[threading.Thread] = []

    def work(job_id: int, *to: str, **fields: Any) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with database.read() as session:
                if session.get(Job, job_id) is not None:
                    break
            time.sleep(0.02)
        time.sleep(0.2)  # so that the command waits for a moment
        move(job_id, *to, **fields)

    def act(job_id: int, *to: str, **fields: Any) -> None:
        workers.append(threading.Thread(target=work, args=(job_id, *to), kwargs=fields))
        workers[-1].start()

    yield act
    for worker in workers:
        worker.join()


@pytest.fixture
def move(database: Database) -> Callable[..., Job]:
    """Move a job as the worker does: move(id, "starting", "running", …, **fields of the last move)."""

    def move(job_id: int, *to: str, **fields: Any) -> Job:
        with database.write() as session:
            job = queue.get_job(session, job_id)
            for index, status in enumerate(to):
                job = queue.advance(session, job, JobStatus(status), **(fields if index == len(to) - 1 else {}))
        return job

    return move
