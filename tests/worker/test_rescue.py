"""What becomes of jobs whose worker is gone: real children that outlive it, and their traces where they do not."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from app.core.boot import boot_id
from app.core.database import Database
from app.core.events.log import read_after
from app.core.events.types import EventKind
from app.core.jobs.controls import pause, resume, sample_now, save_now
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.queries import worker_view
from app.core.jobs.queue import claim_next, request_cancel
from app.core.jobs.status import JobStatus
from app.core.metrics.store import read_series
from app.core.settings import Settings
from tests.worker.conftest import ScriptedWorker
from worker.identity import ProcessIdentity
from worker.presence import Deposed
from worker.readings import Running
from worker.rescue import _seen_of

MakeJob = Callable[..., Job]
Strand = Callable[..., Job]


@pytest.fixture
def strand(scripted: ScriptedWorker, make_job: MakeJob) -> Iterator[Strand]:
    """A job whose child lives and whose supervisor is gone, as after `kill -9` of the worker."""
    orphans = []

    def stranded(script: str) -> Job:
        scripted.follow(script)
        job = make_job()
        scripted.run_to_train(job)
        orphans.append(scripted.take_over())
        return job

    yield stranded
    for orphan in orphans:  # this process is their parent, as the dead worker's would be init
        orphan._process.send(signal.SIGKILL)
        assert orphan._process.wait(10)


@pytest.fixture
def successor(scripted: ScriptedWorker, settings: Settings, database: Database) -> Iterator[ScriptedWorker]:
    """Another worker on the same data folder, the lock passed by; not started."""
    worker = ScriptedWorker(settings, database)
    yield worker
    worker.worker.stop()
    if worker.worker._readings.is_alive():
        worker.worker.run()


def losses(scripted: ScriptedWorker, job: Job) -> list[tuple[int, float | None]]:
    with scripted.database.read() as session:
        return read_series(session, job.key)["loss"]


def test_a_living_child_is_adopted_and_its_job_goes_on_to_its_end(scripted: ScriptedWorker, strand: Strand) -> None:
    job = strand("go")
    pid = scripted.attempt(job).pid or 0
    scripted.worker.rescue()
    assert scripted.worker._readings.running == Running(job.key, pid)
    (scripted.folder.job(job.key) / "go").touch()
    done = scripted.run_to_end(job)
    assert (done.status, done.attempts, done.step, done.summary) == (JobStatus.COMPLETED, 1, 2, {"train_loss": 1.0})
    assert losses(scripted, job) == [(1, 3.0), (2, 1.5)]
    attempt = scripted.attempt(job)
    assert (attempt.pid, attempt.exit_code) == (pid, None)
    assert attempt.ended_at is not None


@pytest.mark.parametrize(("ask", "status"), [("cancel", "cancelled"), ("save", "cancelled"), ("pause", "queued")])
def test_requests_reach_an_adopted_child(scripted: ScriptedWorker, strand: Strand, ask: str, status: str) -> None:
    job = strand("wait")
    scripted.worker.rescue()
    with scripted.database.write() as session:
        now = scripted.job(job)
        if ask == "pause":
            pause(session, scripted.folder, now)
        else:
            request_cancel(session, now, save=ask == "save")
    scripted.run_until(lambda: scripted.attempt(job).ended_at is not None)
    assert (scripted.job(job).status, scripted.job(job).paused) == (status, ask == "pause")
    assert losses(scripted, job) == [(1, 2.0), (2, 1.0 if ask == "save" else 1.5)]


def test_an_adopted_child_that_dies_is_queued_again_within_seconds(scripted: ScriptedWorker, strand: Strand) -> None:
    job = strand("wait")
    scripted.worker.rescue()
    scripted.follow("complete")
    os.kill(scripted.attempt(job).pid or 0, signal.SIGKILL)
    killed_at = time.monotonic()
    scripted.run_until(lambda: scripted.job(job).attempts == 2)
    assert time.monotonic() - killed_at < 5
    assert scripted.attempt(job).outcome == {"outcome": "interrupted", "cause": "process_lost"}
    assert scripted.run_to_end(job).status == JobStatus.COMPLETED


def test_a_child_of_another_versions_worker_is_ended_and_its_job_queued_again(
    scripted: ScriptedWorker, successor: ScriptedWorker, strand: Strand
) -> None:
    job = strand("ignore signals")
    identity = ProcessIdentity.of(scripted.attempt(job).pid or 0)
    with scripted.database.write() as session:
        session.get_one(WorkerState, 1).version = "0.0.1"
    successor.worker.start()
    assert not identity.lives()
    assert scripted.job(job).status == JobStatus.QUEUED
    assert scripted.attempt(job).outcome == {"outcome": "interrupted"}, "it is no loss"
    with scripted.database.read() as session:
        assert session.get_one(WorkerState, 1).version != "0.0.1"


def test_a_worker_whose_place_is_taken_is_refused_and_leaves_the_child_alone(
    scripted: ScriptedWorker, successor: ScriptedWorker, make_job: MakeJob
) -> None:
    """Two workers on one database, past the lock: the later one has the job, and the earlier one nothing."""
    scripted.follow("go")
    job = make_job()
    scripted.run_to_train(job)
    stale = scripted.worker._supervisors.copy()
    successor.worker.start()
    with pytest.raises(Deposed):
        scripted.worker._presence.beat()
    before = scripted.attempt(job)
    (scripted.folder.job(job.key) / "go").touch()
    (supervisor,) = stale.values()
    assert supervisor._process.wait(10)
    scripted.worker.run()  # it finds out by itself, and ends
    assert scripted.attempt(job) == before, "nothing of it was written"
    assert scripted.job(job).status == JobStatus.RUNNING
    done = successor.run_to_end(job)
    assert (done.status, done.attempts) == (JobStatus.COMPLETED, 1)
    assert losses(scripted, job) == [(1, 3.0), (2, 1.5)]


def test_a_stale_worker_that_stops_neither_ends_nor_requeues_what_another_has(
    scripted: ScriptedWorker, successor: ScriptedWorker, make_job: MakeJob
) -> None:
    scripted.follow("wait")
    job = make_job()
    scripted.run_to_train(job)
    own = scripted.worker._supervisors.copy()
    successor.worker.start()
    scripted.worker.stop()
    scripted.worker.run()
    assert ProcessIdentity.of(scripted.attempt(job).pid or 0).lives()
    assert scripted.job(job).status == JobStatus.RUNNING
    successor.worker.stop()
    successor.worker.run()
    assert scripted.job(job).status == JobStatus.QUEUED
    assert [supervisor._process.wait(10) for supervisor in own.values()] == [True]


def test_a_stray_child_whose_job_has_a_later_attempt_is_ended(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("ignore signals")
    job = make_job()
    scripted.run_to_train(job)
    identity = ProcessIdentity.of(scripted.attempt(job).pid or 0)
    with scripted.database.write() as session:
        later = session.get_one(Job, job.key)
        later.fence, later.attempts = later.fence + 1, later.attempts + 1
    stray = scripted.take_over()
    assert not stray.step()
    assert stray._process.wait(10)
    assert not identity.lives()
    assert scripted.attempt(job).ended_at is None, "nothing more is written of it"


def test_a_claim_whose_worker_died_before_it_started_a_process_is_no_loss(
    scripted: ScriptedWorker, make_job: MakeJob
) -> None:
    job = make_job()
    for number in range(1, 5):
        with scripted.database.write() as session:
            assert claim_next(session) is not None
        scripted.worker.rescue()
        assert scripted.job(job).status == JobStatus.QUEUED
        assert scripted.attempt(job, number).outcome == {"outcome": "interrupted"}
    scripted.follow("complete")
    assert scripted.run_to_end(job).attempts == 5


def test_rescue_kills_no_stranger_with_the_same_pid(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    """This very process has that pid, but began at another time: it lives on."""
    job = make_job()
    _claim_as(scripted, ProcessIdentity(os.getpid(), 0.01, boot_id()))
    scripted.worker.rescue()
    assert scripted.job(job).status == JobStatus.QUEUED


def test_after_a_reboot_jobs_are_rescued_at_once_and_no_process_is_touched(
    scripted: ScriptedWorker, make_job: MakeJob
) -> None:
    job = make_job()
    me = ProcessIdentity.of(os.getpid())
    _claim_as(scripted, ProcessIdentity(me.pid, me.started_at, "another boot"))
    scripted.worker.rescue()
    again = scripted.job(job)
    assert again.status == JobStatus.QUEUED
    assert again.error is not None
    assert "The machine was started anew" in again.error["message"]


def _claim_as(scripted: ScriptedWorker, identity: ProcessIdentity) -> None:
    with scripted.database.write() as session:
        claimed = claim_next(session)
        assert claimed is not None
        attempt = claimed[1]
        attempt.pid, attempt.pid_started_at, attempt.boot_id = identity.pid, identity.started_at, identity.boot_id
        session.add(attempt)


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_set_rescues_nothing_and_declares_nobody_dead(
    scripted: ScriptedWorker, strand: Strand, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    job = strand("go")
    real, real_boot = time.time, psutil.boot_time
    monkeypatch.setattr("time.time", lambda: real() + days * 86400)
    monkeypatch.setattr("psutil.boot_time", lambda: real_boot() + days * 86400)
    scripted.worker.rescue()
    assert scripted.job(job).status == JobStatus.RUNNING
    with scripted.database.read() as session:
        view = worker_view(session)
    assert view["alive"]
    assert view["heartbeat_age_seconds"] < 10
    (scripted.folder.job(job.key) / "go").touch()
    assert scripted.run_to_end(job).attempts == 1
    assert losses(scripted, job) == [(1, 3.0), (2, 1.5)]


def test_a_job_that_ended_while_no_worker_lived_is_not_run_again(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("complete")
    job = make_job()
    scripted.run_until(lambda: scripted.job(job).status == JobStatus.RUNNING)
    orphan = scripted.take_over()
    assert orphan._process.wait(10)
    scripted.worker.rescue()
    done = scripted.job(job)
    assert (done.status, done.attempts, done.summary) == (JobStatus.COMPLETED, 1, {"train_loss": 1.0})


def test_a_job_lost_with_its_worker_goes_on_until_it_was_lost_too_often(
    scripted: ScriptedWorker, make_job: MakeJob
) -> None:
    job = make_job()
    me = ProcessIdentity.of(os.getpid())
    for number in (1, 2, 3):
        _claim_as(scripted, ProcessIdentity(me.pid, me.started_at, "another boot"))
        scripted.worker.rescue()
        assert scripted.job(job).status == (JobStatus.QUEUED if number < 3 else JobStatus.FAILED)


def test_what_is_known_of_a_process_that_is_gone_is_said() -> None:
    assert _seen_of(None).planned
    here = ProcessIdentity(1, 0.0, boot_id())
    assert "while no worker ran" in (_seen_of(here).unseen or "")


def test_save_now_reaches_the_child_which_goes_on(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("go")
    job = make_job()
    scripted.run_to_train(job)
    with scripted.database.write() as session:
        save_now(session, scripted.folder, scripted.job(job))
    scripted.run_until(lambda: scripted.job(job).phase == "save")
    assert scripted.job(job).save_now_requested, "until a checkpoint comes"
    (scripted.folder.job(job.key) / "go").touch()
    ended = scripted.run_to_end(job)
    assert (ended.status, ended.save_now_requested) == (JobStatus.COMPLETED, False)
    with scripted.database.read() as session:
        told = read_after(session, 0, job_id=job.id)
    phases = [event.data["phase"] for event in told if event.kind == EventKind.PHASE]
    assert phases == ["train", "save"], "it is asked once"


def test_sample_now_reaches_the_child_each_time_it_is_asked(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("go")
    job = make_job()
    scripted.run_to_train(job)
    for times in (1, 2):
        with scripted.database.write() as session:
            sample_now(session, scripted.folder, scripted.job(job))
        scripted.run_until(lambda: not scripted.job(job).sample_now_requested)
        with scripted.database.read() as session:
            told = read_after(session, 0, job_id=job.id)
        assert [e.data["phase"] for e in told if e.kind == EventKind.PHASE] == ["train", *["sample"] * times]
    (scripted.folder.job(job.key) / "go").touch()
    assert scripted.run_to_end(job).status == JobStatus.COMPLETED


def test_a_paused_job_waits_and_goes_on_when_it_is_resumed(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("wait")
    job = make_job()
    scripted.run_to_train(job)
    with scripted.database.write() as session:
        pause(session, scripted.folder, scripted.job(job))
    scripted.run_until(lambda: scripted.job(job).status == JobStatus.QUEUED)
    scripted.follow("complete")
    for _ in range(5):
        scripted.worker.run_once()
    assert scripted.job(job).attempts == 1
    with scripted.database.write() as session:
        resume(session, scripted.folder, scripted.job(job))
    assert scripted.run_to_end(job).attempts == 2
