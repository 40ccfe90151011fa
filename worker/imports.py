"""Import what a job was queued for: a dataset or a base model."""

from __future__ import annotations

from typing import Any

from worker.base_models import importer as base_models
from worker.context import JobContext
from worker.datasets import importer as datasets


def run_import(context: JobContext) -> dict[str, Any]:
    """Returns the summary of what was imported. Raises: JobError."""
    if "dataset_id" in context.payload:
        return datasets.run_import(context)
    return base_models.run_import(context)
