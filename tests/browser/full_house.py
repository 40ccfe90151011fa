"""A data folder in which every kind of job stands in every state, under names that a page must bear."""

from __future__ import annotations

import math
import time
from typing import Any

from sqlalchemy import insert
from sqlmodel import Session, func, select

from app.core.artifacts.models import Artifact
from app.core.boot import boot_id, uptime_seconds
from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import ENDED, JobKind, JobStatus
from app.core.jobs.tagging import describe
from app.core.metrics.models import MemoryReading, Metric
from app.core.metrics.store import put_metrics
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from tests.browser.conftest import DEVICE, HOST

EVIL = "</script></pre><img src=x onerror=alert(1)><b hx-get=/jobs hx-trigger=load>hx</b>"
NAMES = (
    "qwen3-4b-support",
    "a-name-without-any-space-" * 8,
    EVIL,
    "rakete 🚀 und 🧪 👩‍🔬",
    "تجربة من اليمين إلى اليسار \u202e end",
    " ",
)
ERROR = {
    "kind": "crash",
    "message": f"The process died with signal 11 at step 3. {EVIL}",
    "advice": "Look at the last lines of its log.",
    "log_tail": ["loading", EVIL, "Segmentation fault"],
}
SUMMARY = {"train_loss": 1.125, "eval_loss": 1.0625, "steps": 100, "tokens": 12_345, "tokens_per_second": 3210.5}


def fill(database: Database, folder: DataFolder) -> dict[str, int]:
    """Returns the ids of jobs by what they stand for. Needs the model and the dataset that `registered` makes."""
    with database.write() as session:
        base, dataset = session.exec(select(BaseModel)).one(), session.exec(select(Dataset)).first()
        assert dataset is not None
        session.add(BaseModel(name="m" * 120, status=ModelStatus.FAILED, error=f"It broke. {EVIL}", created_at=0))
        session.add(BaseModel(name="importing-one", status=ModelStatus.IMPORTING, created_at=0))
        house = _House(session, folder, base.key, dataset.key)
        house.in_every_state()
        house.of_every_kind()
        house.worker()
        return house.ids


def add_many(database: Database, count: int) -> None:
    """So many ended trainings beside what is there; every fiftieth with metrics."""
    spec = parse_spec({"base_model": "tiny", "dataset": "small"}).model_dump()
    with database.write() as session:
        session.execute(insert(Job), [_ended(number, spec).model_dump(exclude={"id"}) for number in range(count)])
        first = session.exec(select(func.max(Job.id))).one() or 0
        rows = [
            {"job_id": job_id, "name": name, "step": step, "value": factor / step, "time": float(step)}
            for job_id in range(first, first - count, -50)
            for name, factor in (("loss", 3.0), ("eval_loss", 4.0))
            for step in range(1, 100)
        ]
        session.execute(insert(Metric), rows)


def _ended(number: int, spec: dict[str, Any]) -> Job:
    losses = {"train_loss": 1 + (number * 37 % 1000) / 1000, "eval_loss": 2 - (number * 91 % 1000) / 1000}
    return Job(
        name=f"run {number} of a long night",
        kind=JobKind.TRAIN,
        status=JobStatus.FAILED if number % 9 == 0 else JobStatus.COMPLETED,
        spec=spec,
        summary={**SUMMARY, **losses} if number % 9 else {},
        error=ERROR if number % 9 == 0 else None,
        tags=["night", f"batch {number % 7}"],
        step=100,
        max_steps=100,
        attempts=1,
        created_at=1_700_000_000.0 + number,
        started_at=1_700_000_000.0 + number,
        finished_at=1_700_000_600.0 + number,
    )


class _House:
    def __init__(self, session: Session, folder: DataFolder, model_id: int, dataset_id: int) -> None:
        self.session, self.folder = session, folder
        self.references = {"base_model_id": model_id, "dataset_id": dataset_id}
        self.ids: dict[str, int] = {}

    def job(self, called: str, kind: JobKind = JobKind.TRAIN, **fields: Any) -> Job:
        spec = parse_spec({"base_model": "tiny", "dataset": "small", "sample_prompts": [EVIL, "How?"]}).model_dump()
        now = time.time()
        status = fields.get("status", JobStatus.QUEUED)
        begun = {"attempts": 1, "started_at": now - 600} if status != JobStatus.QUEUED else {}
        begun |= {"finished_at": now - 60} if status in ENDED else {}
        name = fields.pop("name", NAMES[len(self.ids) % len(NAMES)])
        usual = {"name": name, "kind": kind, "spec": spec, "created_at": now - 900, **begun, **self.references}
        job = Job(**{**usual, **fields})
        self.session.add(job)
        self.session.flush()
        self.ids[called] = job.key
        return job

    def in_every_state(self) -> None:
        running = self.job("running", status=JobStatus.RUNNING, phase="train", step=62, max_steps=100, eta_seconds=1080)
        self._metrics(running, 62)
        describe(self.session, running, tags=["night", EVIL[:40], "🚀"], notes=f"{EVIL}\nsecond line")
        self.job("starting", status=JobStatus.STARTING, kind=JobKind.MERGE, source_job_id=running.key, spec={"job": 1})
        self.job("stopping", status=JobStatus.STOPPING, kind=JobKind.EXPORT, spec={"job": 1}, cancel_requested=True)
        self.job("interrupted", status=JobStatus.INTERRUPTED, step=5, max_steps=100)
        done = self.job("completed", status=JobStatus.COMPLETED, step=100, max_steps=100, summary=SUMMARY)
        self._metrics(done, 100)
        self._artifacts(done)
        failed = self.job("failed", status=JobStatus.FAILED, step=3, max_steps=100, error=ERROR)
        self._metrics(failed, 3)
        self.job("no metrics", status=JobStatus.FAILED, error={"kind": "load", "message": "No model.", "advice": None})
        self.job("cancelled", status=JobStatus.CANCELLED, cancel_requested=True)
        self.job("queued")
        self.job("held", paused=True, pause_reason={"kind": "x", "message": EVIL, "advice": "Wait."})

    def of_every_kind(self) -> None:
        done = self.ids["completed"]
        self.job("import", JobKind.IMPORT, status=JobStatus.COMPLETED, spec={})
        self.job("check", JobKind.CHECK, status=JobStatus.COMPLETED, spec={})
        spec = {"job": done, "base": False, "prompt": EVIL, "max_new_tokens": 8}
        answer = {"text": EVIL, "tokens": 8, "stop_reason": "length"}
        answered = {"status": JobStatus.COMPLETED, "source_job_id": done}
        self.job("answer", JobKind.PLAYGROUND, spec=spec, summary=answer, **answered)

    def worker(self) -> None:
        """One that is alive for as long as a test takes, with its reading of one GPU."""
        reading = {"available": True, "reason": None, "devices": [DEVICE], "host": HOST}
        self.session.merge(
            WorkerState(
                pid=1,
                pid_started_at=0.0,
                boot_id=boot_id(),
                version="0",
                started_at=0.0,
                heartbeat_at=uptime_seconds() + 3600,
                reading=reading,
            )
        )

    def _metrics(self, job: Job, steps: int) -> None:
        for step in range(1, steps + 1):
            values = {"loss": 3 / math.sqrt(step), "learning_rate": 1e-4, "grad_norm": 1.5, "tokens_per_second": 3210.0}
            values |= {"eval_loss": 3.2 / math.sqrt(step)} if step % 10 == 0 else {}
            put_metrics(self.session, job.key, step, time.time() - 100 + step, values)
            data = {"available": True, "devices": [DEVICE], "host": HOST}
            self.session.add(MemoryReading(job_id=job.key, time=time.time() - 100 + step, data=data))
        for line in ("INFO worker: training", f"WARNING odd: {EVIL}", "ERROR broke: \u202e rtl 🚀"):
            log.append(self.session, EventKind.LOG, {"lines": [line]}, job_id=job.key)
        for model in ("base", "tuned"):
            data = {"prompt": EVIL, "text": f"{EVIL} {'w' * 300}", "model": model}
            log.append(self.session, EventKind.SAMPLE, data, job_id=job.key, step=0 if model == "base" else steps)
        path = self.folder.job(job.key)
        path.mkdir(parents=True)
        lines = [f"2026-01-01 00:00:{n % 60:02d},000 INFO worker.training: step {n}" for n in range(500)]
        (path / "train.log").write_text("\n".join([*lines, f"2026-01-01 WARNING x: {EVIL}"]) + "\n", encoding="utf-8")

    def _artifacts(self, job: Job) -> None:
        for kind, path, step in (("checkpoint", "checkpoints/50", 50), ("adapter", "adapter", 100)):
            place = self.folder.job(job.key) / path
            place.mkdir(parents=True)
            (place / "adapter_model.safetensors").write_bytes(b"x" * 4096)
            files = [{"path": "adapter_model.safetensors", "bytes": 4096, "sha256": "a" * 64}]
            row = Artifact(job_id=job.key, kind=kind, path=path, step=step, bytes=4096, files=files, created_at=1e9)
            self.session.add(row)
