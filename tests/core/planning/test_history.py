"""What a box's own past and present make of a plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from app.core.boot import boot_id, uptime_seconds
from app.core.database import Database
from app.core.errors import Conflict, InvalidInput
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import JobStatus
from app.core.models.models import BaseModel
from app.core.planning.history import find_box, plan_on_box, predict_memory

CONFIG = Path(__file__).parents[2] / "fixtures" / "configs" / "llama-3.2-1b.json"
MakeJob = Callable[..., Job]
GIB = 1 << 30


@pytest.fixture
def planned(database: Database, registered: tuple[BaseModel, Any], tmp_path: Path) -> None:
    """The registered model is one that can be planned."""
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG.read_bytes())
    with database.write() as session:
        model = session.get_one(BaseModel, registered[0].id)
        model.path = str(folder)
        session.add(model)


def finish(session: Session, job: Job, **summary: Any) -> None:
    stored = session.get_one(Job, job.key)
    stored.status, stored.summary = JobStatus.COMPLETED, summary
    session.add(stored)
    session.flush()


def set_worker(session: Session, *, used: int = 0, mine: int | None = None, cuda: bool = True) -> None:
    device = {"name": "Card", "vram_total_bytes": 24 * GIB, "vram_used_bytes": used, "process_vram_bytes": mine}
    can = {"cuda": "12.8" if cuda else None, "bf16": True, "device_name": "Card"}
    session.add(
        WorkerState(
            pid=1,
            pid_started_at=0.0,
            boot_id=boot_id(),
            version="1",
            started_at=0.0,
            heartbeat_at=uptime_seconds(),
            reading={"devices": [device] if cuda else [], "host": {}},
            capabilities=can,
        )
    )
    session.flush()


def plan(session: Session, home: Path, **values: Any) -> Any:
    return plan_on_box(session, home, parse_spec({"base_model": "tiny", "dataset": "small", **values}))


@pytest.mark.usefixtures("planned")
def test_time_is_told_from_jobs_that_were_alike(
    session: Session, make_job: MakeJob, tmp_path: Path, registered: tuple[BaseModel, Any]
) -> None:
    model, dataset = registered
    names, job = {"base_model": model.name, "dataset": dataset.name}, make_job()
    assert plan(session, tmp_path, **names).schedule.seconds is None
    finish(session, job, tokens=1000, steps=5, tokens_per_second=10.0)
    told = plan(session, tmp_path, **names).schedule
    expected = (told.rows_train * 1000 / (5 * 4)) / 10

    assert told.seconds == pytest.approx(expected, abs=1)
    assert told.seconds_reason == "from 1 finished job on this box"
    assert plan(session, tmp_path, **names, method="full").schedule.seconds is None


@pytest.mark.usefixtures("planned")
def test_a_job_is_held_against_what_other_processes_leave_of_the_card(
    session: Session, tmp_path: Path, registered: tuple[BaseModel, Any]
) -> None:
    set_worker(session, used=10 * GIB, mine=7 * GIB)
    box = find_box(session, tmp_path)

    assert (box.vram_bytes, box.cuda, box.bf16) == (21 * GIB, True, True)
    assert box.vram_source == "Card, less what other processes hold now"
    assert find_box(session, tmp_path, 8 * GIB).vram_bytes == 8 * GIB
    found = plan(session, tmp_path, base_model=registered[0].name)
    assert found.fits is True


def test_without_a_gpu_nothing_is_said_of_fitting(session: Session, tmp_path: Path) -> None:
    set_worker(session, cuda=False)

    assert find_box(session, tmp_path).vram_bytes is None


@pytest.mark.usefixtures("planned")
def test_finished_jobs_of_this_card_and_method_correct_the_plan(
    session: Session, make_job: MakeJob, tmp_path: Path, registered: tuple[BaseModel, Any]
) -> None:
    name, jobs = registered[0].name, [make_job(), make_job()]
    set_worker(session)
    before = plan(session, tmp_path, base_model=name)
    planned = {"weights": 100, "adapter": 100, "optimizer": 100, "working": 100, "overhead": 100}
    for job, (device, factor) in zip(jobs, (("Card", 1.2), ("Another card", 1.9)), strict=True):
        measured = {group: round(size * factor) for group, size in planned.items()}
        finish(session, job, memory={"device": device, "planned": planned, "measured": measured})
    after = plan(session, tmp_path, base_model=name)

    assert before.calibration is None
    assert after.calibration == "corrected by 1 finished job of this method on this box"
    assert after.peak_bytes == pytest.approx(1.2 * before.peak_bytes, rel=1e-6)
    assert plan(session, tmp_path, base_model=name, method="qlora").calibration is None


@pytest.mark.usefixtures("planned")
def test_a_jobs_prediction_is_the_one_before_it(session: Session, make_job: MakeJob) -> None:
    job = make_job()
    before = predict_memory(session, job)
    planned = {"weights": 100, "adapter": 100, "optimizer": 100, "working": 100, "overhead": 100}
    finish(session, job, memory={"device": None, "planned": planned, "measured": {**planned, "working": 150}})

    assert before is not None
    assert set(before) == {"weights", "adapter", "optimizer", "gradients", "activations", "logits", "overhead"}
    assert predict_memory(session, job) == before


def test_a_model_that_cannot_be_planned_has_no_prediction(session: Session, make_job: MakeJob) -> None:
    assert predict_memory(session, make_job()) is None  # its folder holds a config of no known kind


def test_a_model_that_is_not_there_yet_is_said(session: Session, tmp_path: Path) -> None:
    session.add(BaseModel(name="coming", source={"kind": "hub"}, created_at=0.0))
    session.flush()
    with pytest.raises(Conflict, match="still being imported"):
        plan(session, tmp_path, base_model="coming")
    with pytest.raises(InvalidInput, match="is not registered here"):
        plan(session, tmp_path, base_model="unheard-of")
