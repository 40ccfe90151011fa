"""Receipts: what decided a training that saved its result, as the child wrote it into the job's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.core.errors import Conflict
from app.core.paths import DataFolder

if TYPE_CHECKING:  # a child knows receipts, and needs no database
    from app.core.jobs.models import Job

RECEIPT = "receipt.json"
RECEIPT_FORMAT = 1


def receipt_path(folder: DataFolder, job: Job) -> Path:
    """Where the job's receipt lies, once its result is saved."""
    return folder.job(job.key) / RECEIPT


def get_receipt(folder: DataFolder, job: Job) -> dict[str, Any]:
    """{format, spec, seed, dataset, base_model, versions, hardware, result, …}. Raises: Conflict without one."""
    path = receipt_path(folder, job)
    if not path.is_file():
        message = f"Job {job.id} ({job.status}) left no receipt; only a training that saved its result leaves one."
        advice = f"To train with the same spec on what there is now: loradeck jobs clone {job.id}"
        raise Conflict(message, advice=advice)
    try:
        receipt: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Conflict(f"The receipt of job {job.id} is damaged ({path}): {error}") from None
    if receipt.get("format") != RECEIPT_FORMAT:
        raise Conflict(
            f"The receipt of job {job.id} is of format {receipt.get('format')}; this version reads {RECEIPT_FORMAT}.",
            advice="Use the version of Loradeck that it names.",
        )
    return receipt


def find_receipt(folder: DataFolder, job: Job) -> dict[str, Any] | None:
    """The job's receipt where there is one that can be read."""
    try:
        return get_receipt(folder, job)
    except Conflict:
        return None
