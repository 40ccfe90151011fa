"""What an import brought is on record once its process has ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import JobKind, JobStatus
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from tests.worker.tiny import save_tiny_model
from worker.payload import build_payload
from worker.settle import settle

COMMIT = "d" * 40


@pytest.mark.model
def test_a_hub_models_commit_is_kept_and_told_to_the_jobs_on_it(
    database: Database, folder: DataFolder, tmp_path: Path
) -> None:
    with database.write() as session:
        model = BaseModel(name="tiny", source={"kind": "hub", "hub_id": "owner/tiny"}, created_at=0.0)
        session.add(model)
        session.flush()
        save_tiny_model(folder.model(model.key))
        job = queue.enqueue(session, Job(name="i", kind=JobKind.IMPORT, base_model_id=model.key, created_at=0.0))
        for status in (JobStatus.STARTING, JobStatus.RUNNING):
            job = queue.advance(session, job, status)
        outcome = {"outcome": "completed", "summary": {"revision": COMMIT}}
        attempt = Attempt(job_id=job.key, number=1, fence=1, started_at=0.0, outcome=outcome, exit_code=0)
        assert settle(session, folder, job, attempt).status == JobStatus.COMPLETED
    with database.read() as session:
        stored = session.get_one(BaseModel, model.key)
        assert (stored.status, stored.source["revision"]) == (ModelStatus.READY, COMMIT)
        merge = Job(
            name="m", kind=JobKind.PLAYGROUND, base_model_id=stored.key, source_job_id=job.key, created_at=0.0,
            spec={"base": True, "prompt": "x", "max_new_tokens": 1},
        )  # fmt: skip
        assert build_payload(session, folder, tmp_path, merge)["base_model"]["revision"] == COMMIT
