"""An autopsy's changes on a published model: each with the peak that the plan gives it, and the memory it had."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.errors import Conflict
from app.core.jobs import queue
from app.core.jobs.autopsy import Autopsy, apply_change, get_autopsy
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import JobStatus
from app.core.jobs.submit import submit_training
from app.core.models.models import BaseModel
from tests.autopsies import GIB, make_error
from tests.core.planning.conftest import CONFIGS

CUDA = {"cuda": "13.0", "bf16": True, "paged": True, "cannot": {}}


@pytest.fixture
def card(database: Database, registered: tuple[BaseModel, Dataset]) -> None:
    """A worker with a GPU, and Llama-3-8B's sizes for the registered model."""
    model, _ = registered
    shutil.copy(CONFIGS / "llama-3-8b.json", Path(model.path or "") / "config.json")
    with database.write() as session:
        session.add(
            WorkerState(
                pid=1, pid_started_at=0.0, boot_id="", version="0", started_at=0.0, heartbeat_at=0.0, capabilities=CUDA
            )
        )


def fail(database: Database, error: dict[str, Any], **spec: Any) -> Job:
    with database.write() as session:
        job = submit_training(session, parse_spec({"base_model": "tiny", "dataset": "small", **spec}))
        for status in (JobStatus.STARTING, JobStatus.RUNNING):
            job = queue.advance(session, job, status)
        return queue.advance(session, job, JobStatus.FAILED, error=error)


def read(database: Database, job: Job) -> Autopsy:
    with database.read() as session:
        return get_autopsy(session, job)


@pytest.mark.usefixtures("card")
def test_an_8b_on_a_small_card_is_told_to_accumulate_with_its_weights_in_4_bits(database: Database) -> None:
    job = fail(database, make_error(), per_device_train_batch_size=4, gradient_accumulation_steps=4, max_length=512)
    autopsy = read(database, job)
    assert autopsy.predicted_bytes is not None
    assert autopsy.predicted_bytes > (autopsy.capacity_bytes or 0) == 13 * GIB
    first = autopsy.changes[0]
    assert (first.key, first.fits) == ("qlora", True), "the weights alone take more than the card has"
    peaks = {change.key: change.peak_bytes or 0 for change in autopsy.changes}
    assert peaks["batch-1"] < peaks["batch-2"] < autopsy.predicted_bytes
    assert 16 * GIB < peaks["batch-1"] < 18 * GIB
    assert 6 * GIB < peaks["qlora"] < 9 * GIB


@pytest.mark.usefixtures("card")
def test_only_rows_as_long_as_there_are_count_for_the_peak(database: Database) -> None:
    spec = {"method": "qlora", "per_device_train_batch_size": 4, "max_length": 2048}
    short = read(database, fail(database, make_error(), **spec))
    unknown = read(database, fail(database, make_error(batch=None), **spec))
    assert (short.predicted_bytes or 0) < (unknown.predicted_bytes or 0)
    assert not any(change.key.startswith("max_length") for change in short.changes), "the longest row has 512 tokens"
    assert "max_length-1024" in [change.key for change in unknown.changes]


@pytest.mark.usefixtures("card")
def test_what_finished_jobs_have_shown_corrects_the_peaks_of_their_method(database: Database) -> None:
    job = fail(database, make_error(), per_device_train_batch_size=4)
    before = read(database, job)
    with database.write() as session:
        done = submit_training(session, parse_spec({"base_model": "tiny", "dataset": "small"}))
        for status in (JobStatus.STARTING, JobStatus.RUNNING):
            done = queue.advance(session, done, status)
        planned = {"weights": 10, "adapter": 1, "optimizer": 1, "working": 10}
        memory = {"device": None, "planned": planned, "measured": {**planned, "weights": 15}}
        queue.advance(session, done, JobStatus.COMPLETED, summary={"memory": memory})
    after = read(database, job)
    assert after.predicted_bytes == pytest.approx((before.predicted_bytes or 0) + 0.5 * 2 * 8_030_261_248, rel=1e-3)
    peaks = [{change.key: change.peak_bytes for change in each.changes}["qlora"] for each in (before, after)]
    assert peaks[0] == peaks[1], "of the other method nothing is known"


@pytest.mark.usefixtures("card")
def test_memory_of_the_host_is_no_matter_of_the_spec_where_a_gpu_trains(database: Database) -> None:
    job = fail(database, make_error(memory="host", allocator=None))
    assert read(database, job).changes == []
    with database.write() as session, pytest.raises(Conflict, match="none of the changes"):
        apply_change(session, job, "batch-1")


@pytest.mark.parametrize(
    ("allocator", "device", "expected"),
    [
        ({"source": "cuda", "reserved_bytes": 9, "free_bytes": 3, "total_bytes": GIB}, None, GIB // 2 + 12),
        ({"source": "cuda", "reserved_bytes": 9, "free_bytes": 3, "total_bytes": 100}, None, 100),
        ({"source": "limit", "allocated_bytes": 9, "free_bytes": 3, "total_bytes": 12}, None, 12),
        ({"source": "process", "free_bytes": 3, "total_bytes": 12}, None, None),
        (None, None, None),
    ],
)
def test_memory_that_a_job_could_have_is_what_it_held_and_what_was_free(
    database: Database,
    registered: tuple[BaseModel, Dataset],
    allocator: dict[str, Any] | None,
    device: None,
    expected: int | None,
) -> None:
    assert read(database, fail(database, make_error(allocator=allocator, device=device))).capacity_bytes == expected


def test_a_spec_that_this_version_refuses_has_an_autopsy_without_changes(
    database: Database, registered: tuple[BaseModel, Dataset]
) -> None:
    job = fail(database, make_error())
    with database.write() as session:
        stored = queue.get_job(session, job.key)
        stored.spec = {**stored.spec, "of_old": 1}
        session.add(stored)
    with database.read() as session:
        autopsy = get_autopsy(session, queue.get_job(session, job.key))
    assert (autopsy.changes, autopsy.facts["step"]) == ([], 3)
