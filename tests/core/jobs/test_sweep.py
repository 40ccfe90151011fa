"""A sweep is queued as a whole or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.database import Database
from app.core.errors import InvalidInput, NotFound
from app.core.jobs.listing import list_jobs
from app.core.jobs.sweep import check_sweep, differing_fields, expand, get_sweep, submit_sweep
from app.core.jobs.sweep_axes import read_axes
from app.core.paths import DataFolder

VALUES = {"base_model": "tiny", "dataset": "small", "lora_alpha": 16}
pytestmark = pytest.mark.usefixtures("registered")


def test_axes_are_read_line_by_line() -> None:
    text = "learning_rate: 1e-4, 2e-4\n\n r : 8,16 \nmax_steps: 5, null\nseed: 2026-01-01\n"
    text += "target_modules: [[q_proj, v_proj], all-linear]"
    assert read_axes(text) == {
        "learning_rate": ["1e-4", "2e-4"],
        "r": [8, 16],
        "max_steps": [5, None],
        "seed": ["2026-01-01"],
        "target_modules": [["q_proj", "v_proj"], "all-linear"],
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("r", "is not `field: value, value`"),
        ("r:", "is not `field: value, value`"),
        ("r: 8\nr: 16", "r stands twice"),
        ("r: [8", "cannot be read"),
        ("", "at least one field"),
        ("rank: 8, 16", "unknown field 'rank'"),
        ("learning_rates: 1", "unknown field"),
        ("r: ,", "r has no values"),
        ("r: 1,2,3,4,5,6,7,8\nseed: 1,2,3,4,5,6,7,8,9", "These are 72 jobs; a sweep queues 64 at most"),
    ],
)
def test_what_is_wrong_with_axes_is_named(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        expand(VALUES, read_axes(text))
    assert words in caught.value.message
    assert {fault.field for fault in caught.value.faults} == {"sweep"}


def test_every_combination_is_queued_in_order_and_named_by_its_differences(
    database: Database, folder: DataFolder
) -> None:
    axes = read_axes("learning_rate: 1e-4, 2e-4\nr: 8, 16")
    with database.write() as session:
        jobs = submit_sweep(session, VALUES, axes, "night", folder=folder)
    with database.read() as session:
        stored = get_sweep(session, jobs[0].key)
    assert [job.name for job in stored] == [
        "night · learning_rate 1e-4, r 8",
        "night · learning_rate 1e-4, r 16",
        "night · learning_rate 2e-4, r 8",
        "night · learning_rate 2e-4, r 16",
    ]
    assert [(job.spec["learning_rate"], job.spec["r"], job.spec["lora_alpha"]) for job in stored] == [
        (1e-4, 8, 16), (1e-4, 16, 16), (2e-4, 8, 16), (2e-4, 16, 16),
    ]  # fmt: skip
    assert [job.position for job in stored] == sorted(job.position for job in stored)
    assert differing_fields(stored) == ["r", "learning_rate"]
    assert all((folder.job(job.key) / "spec.yaml").is_file() for job in stored)


def test_one_bad_combination_keeps_all_from_being_queued(database: Database, folder: DataFolder) -> None:
    axes = {"r": [8, 7], "init_lora_weights": ["default", "orthogonal"], "target_modules": ["all-linear", ["w_proj"]]}
    with pytest.raises(InvalidInput) as caught, database.write() as session:
        submit_sweep(session, VALUES, axes, folder=folder)
    found = {fault.field: fault.message for fault in caught.value.faults}
    assert "must be even" in found["r"]
    assert "(with r 7, init_lora_weights orthogonal, target_modules all-linear; " in found["r"]
    assert "and 1 more" in found["target_modules"]
    with database.read() as session:
        assert list_jobs(session).total == 0
    assert not any(path.name.isdigit() for path in (folder.home / "jobs").iterdir())


def test_a_fault_of_all_is_told_once_and_without_names(database: Database) -> None:
    with database.read() as session:
        (fault,) = check_sweep(session, expand({**VALUES, "dataset": "nothing"}, {"r": [8, 16]}))
    assert (fault.field, fault.message) == ("dataset", "unknown dataset 'nothing'")


@pytest.mark.parametrize("axes", [{"r": [8, 8]}, {"learning_rate": ["1e-4", 0.0001]}])
def test_two_jobs_that_would_be_the_same_are_refused(database: Database, axes: dict[str, Any]) -> None:
    with database.read() as session:
        (fault,) = check_sweep(session, expand(VALUES, axes))
    assert "two jobs would be the same" in fault.message


def test_a_long_name_leaves_the_differences_whole() -> None:
    (variant,) = expand(VALUES, {"r": [8]})
    assert variant.name("x" * 300).endswith("x · r 8")
    assert len(variant.name("x" * 300)) == 200


def test_an_unknown_sweep_is_not_found(database: Database) -> None:
    with database.read() as session, pytest.raises(NotFound):
        get_sweep(session, 5)
