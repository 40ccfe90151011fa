"""Import what a job was queued for: a dataset or a base model. Only the latter loads torch, hence no import above."""

from __future__ import annotations

import importlib
from typing import Any

from worker.context import JobContext


def run_import(context: JobContext) -> dict[str, Any]:
    """Returns the summary of what was imported. Raises: JobError."""
    package = "datasets" if "dataset_id" in context.payload else "base_models"
    summary: dict[str, Any] = importlib.import_module(f"worker.{package}.importer").run_import(context)
    return summary
