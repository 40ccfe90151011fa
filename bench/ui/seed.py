"""Make the data folder of a busy dashboard: 10,000 jobs, 10,000,000 metric rows, one run of a million steps.

`python -m bench.ui.seed FOLDER` writes 0.6 GB in about a minute; a folder that is there is kept.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from sqlalchemy import text
from sqlmodel import Session

from app.core.boot import boot_id, uptime_seconds
from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import JobKind, JobStatus
from app.core.metrics.models import MemoryReading
from app.core.metrics.pyramid import fold_all
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from app.core.settings import Settings

JOBS = 10_000
LONG_STEPS = 1_000_000
SHORT_STEPS = 100
READINGS = 12_000
STARTED = 1_760_000_000.0
GIB = 2**30
HOST = {
    "ram_total_bytes": 32 * GIB,
    "ram_used_bytes": 12 * GIB,
    "child_rss_bytes": 4 * GIB,
    "cpu_percent": 50.0,
    "disk_total_bytes": 100 * GIB,
    "disk_free_bytes": 60 * GIB,
}

# A falling loss with noise and a spike every 100,003 steps; every value comes from its step alone.
_NOISE = "((({step} * 2654435761) & 4294967295) / 4294967296.0 - 0.5)"
SERIES = {
    "loss": f"0.8 + 2.0 / (1 + {{step}} / 20000.0) + 0.3 * {_NOISE} + 6 * ({{step}} % 100003 = 0)",
    "learning_rate": "2e-4 * (1 - {step} / 1000001.0)",
    "grad_norm": f"1.0 + 0.8 * {_NOISE} + 20 * ({{step}} % 100003 = 0)",
    "tokens_per_second": f"3200 + 300 * {_NOISE}",
    "tokens": "{step} * 2048.0",
}
_FILL = """
    WITH RECURSIVE steps (step) AS (SELECT 1 UNION ALL SELECT step + 1 FROM steps WHERE step < :steps)
    INSERT INTO metric (job_id, name, step, value, time)
    SELECT :job_id, '{name}', step, {value}, :started + step * 0.5 FROM steps
"""
_FILL_SHORT = """
    WITH RECURSIVE steps (step) AS (SELECT 1 UNION ALL SELECT step + 1 FROM steps WHERE step < :steps)
    INSERT INTO metric (job_id, name, step, value, time)
    SELECT job.id, '{name}', steps.step, {value}, job.started_at + steps.step
    FROM job CROSS JOIN steps WHERE job.id < :job_id AND job.started_at IS NOT NULL
"""
_EVALS = """
    INSERT INTO metric (job_id, name, step, value, time)
    SELECT job_id, 'eval_loss', step, value + 0.05, time FROM metric
    WHERE job_id = :job_id AND name = 'loss' AND step % 500 = 0
"""


def seed(home: Path) -> int:
    """Fill a new data folder; returns the id of the long job."""
    folder = DataFolder(home).create()
    database = Database(Settings(home=home).effective_database_url)
    database.migrate(folder.backups)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        for pragma in ("synchronous=OFF", "cache_size=-200000"):
            connection.exec_driver_sql(f"PRAGMA {pragma}")
    with database.write() as session:
        long_job = _add_jobs(session, home)
        _add_metrics(session, long_job)
        _add_readings(session, long_job)
        _add_events(session, long_job)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.engine.dispose()
    (home / "seeded.json").write_text(json.dumps({"long_job": long_job}))
    return long_job


def _add_jobs(session: Session, home: Path) -> int:
    weights = home / "models" / "tiny"
    weights.mkdir(parents=True, exist_ok=True)
    model = BaseModel(name="tiny", status=ModelStatus.READY, path=str(weights), created_at=STARTED)
    session.add(model)
    session.flush()
    spec = parse_spec({"base_model": "tiny", "dataset": "demo"}).model_dump(mode="json")
    statuses = [JobStatus.COMPLETED] * 8 + [JobStatus.FAILED, JobStatus.CANCELLED]
    for number in range(1, JOBS):
        began = STARTED + 600 * number
        status = JobStatus.QUEUED if number >= JOBS - 20 else statuses[number % len(statuses)]
        session.add(
            Job(
                name=f"run {number} of a search, lr {number % 7 + 1}e-4",
                kind=JobKind.TRAIN,
                status=status,
                position=float(number),
                spec={**spec, "learning_rate": (number % 7 + 1) * 1e-4, "seed": number},
                base_model_id=model.id,
                step=SHORT_STEPS,
                max_steps=SHORT_STEPS,
                summary={"train_loss": 1 + 1 / number, "eval_loss": 1.1 + 1 / number, "tokens_per_second": 3000.0},
                error={"kind": "x", "message": "It broke.", "advice": None} if status == JobStatus.FAILED else None,
                attempts=1,
                created_at=began,
                started_at=None if status == JobStatus.QUEUED else began,
                finished_at=None if status == JobStatus.QUEUED else began + 300,
            )
        )
    running = Job(
        name="the long one",
        kind=JobKind.TRAIN,
        status=JobStatus.RUNNING,
        phase="train",
        spec=spec,
        base_model_id=model.id,
        step=LONG_STEPS,
        max_steps=2 * LONG_STEPS,
        attempts=1,
        created_at=STARTED,
        started_at=STARTED,
    )
    session.add(running)
    session.flush()
    return running.key


def _add_metrics(session: Session, long_job: int) -> None:
    for name, value in SERIES.items():
        of_long = {"job_id": long_job, "steps": LONG_STEPS, "started": STARTED}
        session.execute(text(_FILL.format(name=name, value=value.format(step="step"))), of_long)
        short = _FILL_SHORT.format(name=name, value=value.format(step="(steps.step * 17 + job.id)"))
        session.execute(text(short), {"job_id": long_job, "steps": SHORT_STEPS})
    session.execute(text(_EVALS), {"job_id": long_job})
    fold_all(session)


def _add_readings(session: Session, long_job: int) -> None:
    """Of the long job: a minute each, and its last minutes by the second."""
    end = STARTED + LONG_STEPS * 0.5
    for number in range(READINGS):
        age = number if number < 600 else 600 + 60 * (number - 600)
        used = 9 + (number % 60) / 60
        device = {
            "index": 0,
            "name": "NVIDIA GeForce RTX 4070 Ti SUPER",
            "uuid": "GPU-1",
            "vram_total_bytes": 16 * GIB,
            "vram_used_bytes": int(used * GIB),
            "process_vram_bytes": int((used - 1) * GIB),
            "utilization_percent": 90 + number % 10,
            "temperature_celsius": 60 + number % 15,
            "power_watts": 268.3,
        }
        data = {"available": True, "devices": [device], "host": HOST}
        seconds = 1 if number < 600 else 60
        session.add(MemoryReading(job_id=long_job, time=end - age, seconds=seconds, data=data))


def _add_events(session: Session, long_job: int) -> None:
    """What is left of old jobs after retention."""
    for job_id in range(1, JOBS):
        for status in ("running", "completed"):
            data = {"status": status, "name": f"run {job_id}", "kind": "train", "error": None, "paused": False}
            log.append(session, EventKind.STATUS, data, job_id=job_id, at=STARTED)
        log.append(session, EventKind.LOG, {"lines": [f"line of job {job_id}"]}, job_id=job_id, at=STARTED)
    lines = {"lines": [f"step {number}" for number in range(500)]}
    log.append(session, EventKind.LOG, lines, job_id=long_job, at=STARTED)


def revive(home: Path) -> None:
    """A worker that is alive, whenever the folder was filled."""
    database = Database(Settings(home=home).effective_database_url)
    database.migrate(DataFolder(home).create().backups)
    with database.write() as session:
        session.merge(
            WorkerState(
                pid=1,
                pid_started_at=0.0,
                boot_id=boot_id(),
                version="0",
                started_at=0.0,
                heartbeat_at=uptime_seconds() + 86_400,
                reading={"available": False, "reason": "none here", "devices": [], "host": HOST},
            )
        )
    database.engine.dispose()


def ensure(home: Path) -> int:
    """The long job's id; the folder is filled where it was not."""
    done = home / "seeded.json"
    if done.exists():
        return int(json.loads(done.read_text())["long_job"])
    began = time.monotonic()
    job_id = seed(home)
    print(f"seeded {home} in {time.monotonic() - began:.0f} s")
    return job_id


if __name__ == "__main__":
    ensure(Path(sys.argv[1]))
