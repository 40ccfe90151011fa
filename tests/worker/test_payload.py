"""What a child is told of its job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.errors import Conflict
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.receipts import get_receipt, receipt_path
from app.core.jobs.rerun import rerun_training
from app.core.jobs.status import JobStatus
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
