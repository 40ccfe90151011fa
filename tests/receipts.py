"""Receipts as a job's child leaves them, for tests that train nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.core.datasets.models import Dataset
from app.core.jobs.models import Job
from app.core.jobs.receipts import receipt_path
from app.core.models.models import BaseModel
from app.core.paths import DataFolder


def write_receipt(folder: DataFolder, job: Job, model: BaseModel, dataset: Dataset, /, **changes: Any) -> Path:
    """The receipt that the job's child would have left."""
    receipt = {
        "format": 1,
        "job_id": job.id,
        "created_at": 0.0,
        "spec": job.spec,
        "seed": job.spec["seed"],
        "dataset": {"name": dataset.name, "format": dataset.format, "sha256": dataset.rows_sha256},
        "base_model": {
            "name": model.name,
            "architecture": model.architecture,
            "hub_id": model.source.get("hub_id"),
            "sha256": "ab" * 32,
        },
        "versions": {"loradeck": "0.1.0", "torch": "2.13.0"},
        "hardware": {"device": "cpu", "threads": 2},
        "result": {"train_loss": 1.5},
    }
    path = receipt_path(folder, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**receipt, **changes}), encoding="utf-8")
    return path
