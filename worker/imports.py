"""Import what a job was queued for: a dataset or a base model. Only the latter loads torch, hence no import above."""

from __future__ import annotations

import importlib
from typing import Any

from worker.context import JobContext


def run_import(context: JobContext) -> dict[str, Any]:
    """Returns the summary of what was imported. Raises: JobError, InvalidInput."""
    summary: dict[str, Any] = importlib.import_module(f"worker.{_module(context.payload)}").run_import(context)
    return summary


def _module(payload: dict[str, Any]) -> str:
    if "dataset_id" not in payload:
        return "base_models.importer"
    return "datasets.importer" if payload["source"]["kind"] == "hub" else "datasets.uploaded"
