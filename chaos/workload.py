"""The jobs: a few short trainings that come again and again, each of which has a twin that nothing disturbs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlmodel import col, select

from app.core.database import Database
from app.core.datasets.store import add_file
from app.core.jobs.models import Job
from app.core.jobs.status import ENDED, JobKind
from app.core.models.models import BaseModel, ModelStatus
from app.core.models.registry import add_model
from app.core.paths import DataFolder
from chaos.client import Client

WAITING = 2  # trainings in the queue at any time, that in hand included
TWIN_SECONDS = 300.0
_POLL_SECONDS = 0.05
_MODEL, _ROWS, _PAIRS = "tiny", "rows", "pairs"

_COMMON: dict[str, Any] = {
    "base_model": _MODEL, "dataset": _ROWS, "r": 4, "lora_alpha": 8, "max_length": 64, "bf16": False,
    "per_device_train_batch_size": 2, "max_steps": 24, "save_steps": 3, "eval_steps": 12, "learning_rate": 1e-2,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"lora_dropout": 0.1, "gradient_accumulation_steps": 2},
    "packed": {"packing": True, "per_device_train_batch_size": 1},
    "dpo": {"task": "dpo", "dataset": _PAIRS},
}
LIGHT_VARIANTS: dict[str, dict[str, Any]] = {"short": {"max_steps": 30}, "long": {"max_steps": 50, "save_steps": 5}}

_MAKE_MODEL = (
    "import sys, pathlib; from scripts.gpu_check_job import make_tiny_model as m; m(pathlib.Path(sys.argv[1]))"
)


@dataclass(slots=True)
class Workload:
    """Keeps the queue filled. `jobs` are those that the server has said to have: id -> variant."""

    database: Database
    client: Client
    light: bool
    twins: dict[str, int] = field(default_factory=dict)  # variant -> the job that was not disturbed
    jobs: dict[int, str] = field(default_factory=dict)
    merges: dict[int, int] = field(default_factory=dict)  # id -> the training
    waiting: int = WAITING
    _sent: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        return LIGHT_VARIANTS if self.light else VARIANTS

    def run_twins(self) -> None:
        """Every variant once from beginning to end, and its merge. Raises: RuntimeError where one does not complete."""
        for variant in self.variants:
            trained = self.wait(self.submit_variant(variant, f"twin {variant}"))
            self.twins[variant] = trained
            merged = self.client.merge(trained)
            self.merges[self.wait(merged)] = trained

    def fill(self) -> None:
        """See to it that trainings wait."""
        for _ in range(self.waiting - self._count_open()):
            self.submit()

    def submit(self) -> int | None:
        """One more training; None where it is not known whether it was stored."""
        variant = list(self.variants)[self._sent % len(self.variants)]
        self._sent += 1
        return self.submit_variant(variant, f"{variant} {self._sent}")

    def submit_beside(self) -> None:
        """As `submit`, on a thread, so that something can happen to it."""
        thread = threading.Thread(target=self.submit, name="submit", daemon=True)
        thread.start()
        self._threads.append(thread)

    def join(self) -> None:
        """Until every submission has been answered or is known to be unsure."""
        for thread in self._threads:
            thread.join()

    def merge_one(self) -> int | None:
        """Queue the merge of a training that is done; None where that is not known to be stored."""
        merged = {job for job in self.merges.values()}
        done = [job_id for job_id in self.completed() if job_id not in merged]
        trained = done[0] if done else next(iter(self.twins.values()))
        job_id = self.client.merge(trained)
        if job_id is not None:
            self.merges[job_id] = trained
        return job_id

    def completed(self) -> list[int]:
        """Trainings that are done, in order."""
        with self.database.read() as session:
            done = select(Job.id).where(Job.status == "completed", Job.kind == JobKind.TRAIN).order_by(col(Job.id))
            return [job_id for job_id in session.exec(done) if job_id is not None]

    def open_jobs(self) -> list[Job]:
        """What has not ended, in order."""
        with self.database.read() as session:
            return list(session.exec(select(Job).where(col(Job.status).not_in(ENDED)).order_by(col(Job.id))))

    def _count_open(self) -> int:
        return sum(1 for job in self.open_jobs() if job.kind == JobKind.TRAIN)

    def submit_variant(self, variant: str, name: str, **more: Any) -> int | None:
        """As `submit`, of a kind and by a name of one's choice."""
        job_id = self.client.submit(_COMMON | self.variants[variant] | more, name)
        if job_id is not None:
            self.jobs[job_id] = variant
        return job_id

    def wait(self, job_id: int | None) -> int:
        """Until the job is completed; returns its id. Raises: RuntimeError where it ends otherwise, or not in time."""
        if job_id is None:
            raise RuntimeError("the connection broke though nothing was killed")
        deadline = time.monotonic() + TWIN_SECONDS
        while time.monotonic() < deadline:
            with self.database.read() as session:
                job = session.get_one(Job, job_id)
            if job.status in ENDED:
                break
            time.sleep(_POLL_SECONDS)
        if job.status != "completed":
            raise RuntimeError(f"job {job_id} is {job.status}: {job.error}")
        return job_id


def prepare(database: Database, folder: DataFolder, *, light: bool) -> None:
    """Register the tiny model and its datasets before the first start, which then registers nothing itself."""
    given = folder.home / "given"
    given.mkdir()
    model = given / _MODEL
    if not light:
        subprocess.run([sys.executable, "-c", _MAKE_MODEL, str(model)], check=True)
    with database.write() as session:
        if light:
            session.add(_light_model(model))
        else:
            add_model(session, str(model), [given], name=_MODEL)
        add_file(session, folder, _write(given / "rows.jsonl", _rows()), _ROWS)
        add_file(session, folder, _write(given / "pairs.jsonl", _pairs()), _PAIRS)


def _light_model(path: Path) -> BaseModel:
    path.mkdir()
    modules = ["q_proj", "k_proj", "v_proj", "o_proj"]
    return BaseModel(name=_MODEL, status=ModelStatus.READY, path=str(path), linear_modules=modules, created_at=0.0)


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _rows() -> list[dict[str, Any]]:
    return [{"instruction": f"Say {n}.", "input": "", "output": f"It is {n * n}."} for n in range(60)]


def _pairs() -> list[dict[str, Any]]:
    return [{"prompt": f"Say {n}.", "chosen": f"It is {n}.", "rejected": f"No {n}."} for n in range(60)]
