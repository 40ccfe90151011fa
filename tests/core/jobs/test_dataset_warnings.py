"""A dataset that the task cannot learn from is warned of; a plan loads nothing of the database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.core.datasets.kinds import RowKind
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.jobs.dataset_warnings import dataset_warnings


@pytest.mark.parametrize(
    ("kind", "task", "fix"),
    [
        (RowKind.PREFERENCE, "sft", "dpo"),
        (RowKind.TEXT, "dpo", "text"),
        (RowKind.MESSAGES, "text", "sft"),
        (RowKind.MESSAGES, "sft", None),
        (RowKind.TEXT, "text", None),
        (RowKind.TEXT, "no such task", None),
    ],
)
def test_rows_that_the_task_cannot_learn_from_are_warned_of_with_the_fitting_task(
    kind: RowKind, task: str, fix: str | None
) -> None:
    dataset = Dataset(name="d", format="f", kind=kind, rows=1, bytes=1, sha256="", rows_sha256="", created_at=0.0)
    warnings = dataset_warnings(dataset, task)
    assert [warning.fix for warning in warnings] == ([] if fix is None else [{"task": fix}])
    assert all(f"d holds {kind} rows" in warning.message for warning in warnings)


def test_a_dataset_that_is_still_imported_is_not_warned_of() -> None:
    dataset = Dataset(name="d", format="f", rows=0, bytes=0, sha256="", rows_sha256="", created_at=0.0)
    dataset.status = DatasetStatus.IMPORTING
    assert dataset_warnings(dataset, "dpo") == []


def test_a_plan_alone_loads_no_database_and_the_command_none_either() -> None:
    code = (
        "import sys, app.cli, app.core.planning.plan; print([n for n in ('sqlalchemy', 'fastapi') if n in sys.modules])"
    )
    root = Path(__file__).parents[3]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
