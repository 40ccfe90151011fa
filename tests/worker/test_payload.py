"""What a child is told of its job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.datasets.store import rows_path
from app.core.errors import Conflict
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.receipts import get_receipt, receipt_path
from app.core.jobs.rerun import rerun_training
from app.core.jobs.status import JobKind, JobStatus
from app.core.models.models import BaseModel
from app.core.paths import DataFolder
from tests.receipts import write_receipt
from worker.payload import build_payload


def test_a_rerun_is_told_the_receipt_that_it_repeats(
    database: Database,
    folder: DataFolder,
    registered: tuple[BaseModel, Dataset],
    make_job: Callable[..., Job],
    tmp_path: Path,
) -> None:
    job = make_job()
    with database.write() as session:
        for status in (JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED):
            job = queue.advance(session, job, status)
    write_receipt(folder, job, *registered)
    with database.write() as session:
        again = rerun_training(session, folder, job)
        assert build_payload(session, folder, tmp_path, job)["rerun"] is None
        payload = build_payload(session, folder, tmp_path, again)
        assert payload["rerun"] == {"job_id": job.id, "receipt": get_receipt(folder, job)}
        receipt_path(folder, job).unlink()
        with pytest.raises(Conflict, match="left no receipt"):
            build_payload(session, folder, tmp_path, again)


@pytest.mark.parametrize("kind", [JobKind.CHECK, JobKind.PREVIEW])
def test_a_check_or_preview_is_told_what_it_looks_at(
    kind: JobKind, database: Database, folder: DataFolder, registered: tuple[BaseModel, Dataset], tmp_path: Path
) -> None:
    model, dataset = registered
    spec = {"path": "/uploads/x.jsonl", "max_length": 128}
    with database.write() as session:
        job = queue.enqueue(session, Job(name="c", kind=kind, created_at=0.0, spec=spec))
        nothing = {"spec": spec, "dataset": None, "path": "/uploads/x.jsonl", "base_model": None}
        assert build_payload(session, folder, tmp_path, job) == nothing
        job.base_model_id, job.dataset_id = model.id, dataset.id
        told = build_payload(session, folder, tmp_path, job)
        assert told["base_model"]["path"] == model.path
        assert told["dataset"]["path"] == str(rows_path(folder, dataset).resolve())
