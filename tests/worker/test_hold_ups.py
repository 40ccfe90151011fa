"""What holds a running job up is on its page: a step that does not end, a disk without room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.jobs.models import Job
from app.core.jobs.status import JobKind, JobStatus
from app.core.metrics.store import read_series
from tests.worker.conftest import ScriptedWorker
from worker.hold_ups import FIRST_STEP_SECONDS, STALLED_SECONDS, HoldUps
from worker.identity import ProcessIdentity
from worker.notes import FILE, WaitNote

MakeJob = Callable[..., Job]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, to be set."""
    now = [1000.0]
    monkeypatch.setattr("worker.hold_ups.time.monotonic", lambda: now[0])
    return now


def job_at(step: int, phase: str | None = "train") -> Job:
    return Job(id=1, name="j", kind=JobKind.TRAIN, status=JobStatus.RUNNING, phase=phase, step=step, created_at=0)


def age(hold_ups: HoldUps, clock: list[float], job: Job, seconds: float) -> bool:
    """Whether the job is stalled so long after its last change."""
    clock[0] += seconds
    found = hold_ups.find(job)
    assert found is None or found["kind"] == "stalled"
    return found is not None


def test_a_step_that_takes_far_longer_than_those_before_is_a_stall(tmp_path: Path, clock: list[float]) -> None:
    hold_ups = HoldUps(tmp_path)
    assert not age(hold_ups, clock, job_at(0), 0)
    assert not age(hold_ups, clock, job_at(0), FIRST_STEP_SECONDS - 2)
    assert age(hold_ups, clock, job_at(0), 3)
    for step in (1, 2):
        assert not age(hold_ups, clock, job_at(step), 20)
    assert not age(hold_ups, clock, job_at(2), 198)  # ten of the last one's 20 s
    assert age(hold_ups, clock, job_at(2), 3)
    assert not age(hold_ups, clock, job_at(3, "eval"), 100)
    assert not age(hold_ups, clock, job_at(3, "eval"), 9999)  # an eval takes as long as it takes


def test_fast_steps_are_given_two_minutes(tmp_path: Path, clock: list[float]) -> None:
    hold_ups = HoldUps(tmp_path)
    for step in range(3):
        assert not age(hold_ups, clock, job_at(step), 0.1)
    assert not age(hold_ups, clock, job_at(2), STALLED_SECONDS - 2)
    assert age(hold_ups, clock, job_at(2), 3)


def test_a_note_that_is_being_written_or_is_not_there_holds_nothing_up(tmp_path: Path, clock: list[float]) -> None:
    (tmp_path / FILE).write_text('{"kind": "di')
    assert HoldUps(tmp_path).find(job_at(1)) is None
    WaitNote(tmp_path / FILE).put({"kind": "disk_full", "message": "full"})
    found = HoldUps(tmp_path).find(job_at(1))
    assert found is not None
    assert (found["kind"], found["message"]) == ("disk_full", "full")


def test_a_hung_step_is_said_though_its_process_lives_and_nobody_ends_it(
    scripted: ScriptedWorker, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.hold_ups.FIRST_STEP_SECONDS", 0.3)
    monkeypatch.setattr("worker.hold_ups.STALLED_SECONDS", 0.3)
    monkeypatch.setattr("worker.hold_ups.STALLED_STEPS", 0.0)
    scripted.follow("go")
    job = make_job()
    scripted.run_until(lambda: (scripted.job(job).held_up or {}).get("kind") == "stalled")
    held_up = scripted.job(job).held_up or {}
    assert "Step 2 has not ended for 0 s" in held_up["message"]
    assert scripted.job(job).status == JobStatus.RUNNING
    assert ProcessIdentity.of(scripted.attempt(job).pid or 0).lives()
    (scripted.folder.job(job.key) / "go").touch()
    done = scripted.run_to_end(job)
    assert (done.status, done.attempts, done.held_up) == (JobStatus.COMPLETED, 1, None)


def test_a_child_that_finds_the_disk_full_waits_says_so_and_loses_nothing(
    scripted: ScriptedWorker, make_job: MakeJob
) -> None:
    scripted.follow("full disk")
    job = make_job()
    scripted.run_until(lambda: scripted.job(job).held_up is not None)
    waiting = scripted.job(job)
    assert (waiting.status, waiting.step) == (JobStatus.RUNNING, 1)
    assert "goes on as soon as there is space" in (waiting.held_up or {})["message"]
    (scripted.folder.job(job.key) / "go").touch()
    done = scripted.run_to_end(job)
    assert (done.status, done.attempts, done.held_up) == (JobStatus.COMPLETED, 1, None)
    with scripted.database.read() as session:
        assert read_series(session, job.key) == {"loss": [(1, 3.0), (2, 1.5)]}
