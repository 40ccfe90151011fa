"""What is doubtful about a choice of dataset. Apart from the other warnings: a plan alone needs no database."""

from __future__ import annotations

from app.core.datasets.models import Dataset, DatasetStatus
from app.core.jobs.submit import KIND_OF_TASK
from app.core.jobs.warnings import SpecWarning


def dataset_warnings(dataset: Dataset, task: str) -> list[SpecWarning]:
    """A dataset whose rows are not what the task learns from, as far as they are known already."""
    wanted = KIND_OF_TASK.get(task)
    if wanted is None or dataset.kind == wanted or dataset.status == DatasetStatus.IMPORTING:
        return []
    fitting = next(each for each, kind in KIND_OF_TASK.items() if kind == dataset.kind)
    message = f"{dataset.name} holds {dataset.kind} rows; the task {task} learns from {wanted} rows."
    return [SpecWarning("dataset_kind", "dataset", message, {"task": fitting})]
