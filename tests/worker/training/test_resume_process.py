"""A real worker is killed in mid-run and started again: the job ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlmodel import Session

from app.core.database import Database
from app.core.datasets.store import add_file
from app.core.jobs.models import Attempt, Job
from app.core.jobs.queue import get_job
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import ENDED, JobStatus
from app.core.jobs.submit import submit_training
from app.core.metrics.store import read_series
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from app.core.settings import Settings
from tests.conftest import LINEAR_MODULES
from tests.live_server import environment_for
from tests.worker.tiny import make_context, read_records, train_payload, write_rows
from worker.base_models.publish import hash_file
from worker.context import JobContext
from worker.payload import build_payload
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

PATIENCE_SECONDS = 120.0
WEIGHTS = "adapter/adapter_model.safetensors"


def wait_until(condition: Callable[[], bool], pause_seconds: float = 0.05) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(pause_seconds)


@contextmanager
def worker(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m worker` on the data folder, its children on one thread as this process is."""
    environment = {**environment_for(home), "LORADECK_SPARE_CHILD": "false", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "worker"], env=environment, cwd=Path(__file__).parents[3])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def queue_job(session: Session, folder: DataFolder, model: Path, rows: Path) -> Job:
    base = BaseModel(name="tiny", status=ModelStatus.READY, path=str(model), created_at=0.0)
    base.linear_modules, base.architecture = LINEAR_MODULES, "LlamaForCausalLM"
    session.add(base)
    add_file(session, folder, rows, "boxes")
    steps = {"max_steps": 60, "eval_steps": 15, "save_steps": 4, "lora_dropout": 0.1, "target_modules": ["q_proj"]}
    return submit_training(session, parse_spec(train_payload(model, rows, **steps)["spec"]), None)


def test_job_of_a_killed_worker_ends_as_an_undisturbed_one(
    settings: Settings, database: Database, folder: DataFolder, tiny_model: Path, tmp_path: Path
) -> None:
    with database.write() as session:
        job = queue_job(session, folder, tiny_model, write_rows(tmp_path / "rows.jsonl"))
        payload = build_payload(session, folder, settings.cache, job)
    own = folder.job(job.key)

    with worker(folder.home) as first:
        wait_until(lambda: len(list(own.glob("state/step-*"))) == 2, pause_seconds=0.01)
        with database.read() as session:
            pid = session.get_one(Attempt, (job.key, 1)).pid or 0
        os.kill(pid, signal.SIGSTOP)  # else it might end before a worker is there to see that it is stranded
        first.kill()
        first.wait()
        os.kill(pid, signal.SIGKILL)  # one that lives would be adopted
    saved = max(int(path.name.removeprefix("step-")) for path in own.glob("state/step-*"))
    assert saved < 60

    with worker(folder.home):
        wait_until(lambda: status_of(database, job) in ENDED)

    twin = make_context(tmp_path / "twin", "train", {**payload, "inputs": None})
    run_training(twin)
    with database.read() as session:
        done, series = get_job(session, job.key), read_series(session, job.key)
    assert (done.status, done.attempts, done.step) == (JobStatus.COMPLETED, 2, 60)
    assert (done.summary["resumed_from_step"], done.summary["attempts"]) == (saved, 2)
    assert json.loads((own / "receipt.json").read_text())["result"]["resumed_from_step"] == saved
    assert f"going on from the training state of step {saved}" in (own / "train.log").read_text()
    del series["tokens_per_second"]
    assert series == curves_of(twin)
    assert hash_file(own / WEIGHTS) == hash_file(twin.folder / WEIGHTS)
    assert (own / "state" / "step-60").is_dir(), "a completed run can be made longer"


def status_of(database: Database, job: Job) -> JobStatus:
    with database.read() as session:
        return get_job(session, job.key).status


def curves_of(context: JobContext) -> dict[str, list[tuple[int, float]]]:
    """A run's series as the database holds them, without what depends on the moment."""
    values = {
        (name, record.step or 0): value
        for record in read_records(context)
        if record.kind == "metric"
        for name, value in record.data.items()
        if name != "tokens_per_second"
    }
    names = {name for name, _step in values}
    return {name: sorted((step, value) for (n, step), value in values.items() if n == name) for name in names}
