"""The worker's rounds, with real child processes that follow a script."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import psutil
import pytest
from sqlmodel import select

from app.core.events.models import Event
from app.core.jobs.models import Attempt, Job, WorkerState
from app.core.jobs.queue import enqueue, request_cancel
from app.core.jobs.spec import parse_yaml
from app.core.jobs.status import ENDED, JobKind, JobStatus
from app.core.metrics.store import put_metrics, read_series
from tests.worker.conftest import ScriptedWorker
from worker.identity import ProcessIdentity
from worker.lanes import is_light
from worker.readings import Running

MakeJob = Callable[..., Job]


def ended(scripted: ScriptedWorker, job: Job) -> Callable[[], bool]:
    return lambda: scripted.job(job).status in ENDED


def attempt_of(scripted: ScriptedWorker, job: Job, number: int = 1) -> Attempt:
    with scripted.database.read() as session:
        return session.get_one(Attempt, (job.key, number))


def events_of(scripted: ScriptedWorker, job: Job, kind: str) -> list[Event]:
    with scripted.database.read() as session:
        return list(session.exec(select(Event).where(Event.job_id == job.id, Event.kind == kind).order_by(Event.id)))


def test_lanes_run_beside_each_other_and_each_one_job_at_a_time(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    """A cancel reaches its own job alone, and a stop of the worker ends all and loses none."""
    scripted.follow("wait")
    jobs = [make_job(), make_job(), *(queued(scripted, kind) for kind in (JobKind.CHECK, JobKind.PREVIEW))]
    running, waiting, check, preview = jobs
    scripted.run_until(lambda: all(scripted.job(job).phase == "train" for job in (running, check, preview)))
    assert scripted.job(waiting).status == JobStatus.QUEUED
    with scripted.database.write() as session:
        request_cancel(session, scripted.job(check))
    scripted.run_until(ended(scripted, check))
    assert [scripted.job(job).status for job in jobs] == ["running", "queued", "cancelled", "running"]
    assert scripted.worker._readings.running == Running(running.key, attempt_of(scripted, running).pid or 0)
    scripted.worker.rescue()
    assert scripted.job(preview).status == JobStatus.RUNNING, "what is in hand is not stranded"
    scripted.worker.stop()
    scripted.worker.run()
    assert [scripted.job(job).status for job in jobs] == ["queued", "queued", "cancelled", "queued"]
    assert attempt_of(scripted, preview).outcome == {"outcome": "interrupted"}


def queued(scripted: ScriptedWorker, kind: JobKind) -> Job:
    with scripted.database.write() as session:
        return enqueue(session, Job(name=kind, kind=kind, created_at=0))


@pytest.mark.parametrize(
    ("kind", "spec", "light"),
    [
        (JobKind.CHECK, {}, True),
        (JobKind.PREVIEW, {}, True),
        (JobKind.IMPORT, {"kind": "file"}, True),
        (JobKind.IMPORT, {"kind": "hub"}, False),
    ],
)
def test_what_downloads_nothing_has_limits_from_its_start(kind: JobKind, spec: dict[str, str], light: bool) -> None:
    assert is_light(Job(name="x", kind=kind, spec=spec, dataset_id=1, created_at=0)) is light
    assert not is_light(Job(name="x", kind=JobKind.IMPORT, spec={"kind": "gguf"}, created_at=0))


def test_a_light_child_that_tells_nothing_is_killed(
    scripted: ScriptedWorker, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.launch.PATIENCE_SECONDS", 0.3)
    scripted.follow("ignore signals")
    training, check = make_job(), queued(scripted, JobKind.CHECK)
    scripted.run_until(ended(scripted, check))
    error = scripted.job(check).error or {}
    assert (error["kind"], error["message"]) == (
        "child_died", "Its process was ended: it had not told of any progress for 0.3 s."
    )  # fmt: skip
    assert scripted.job(training).status == JobStatus.RUNNING, "a training may be silent"


def test_job_is_run_to_its_end(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("complete")
    job = make_job()
    scripted.run_until(ended(scripted, job))
    done = scripted.job(job)
    assert (done.status, done.step, done.max_steps, done.phase) == (JobStatus.COMPLETED, 3, 3, None)
    assert done.summary == {"train_loss": 1.0}
    assert done.attempts == 1
    with scripted.database.read() as session:
        assert read_series(session, job.key) == {"loss": [(1, 3.0), (2, 1.5), (3, 1.0)]}
    statuses = [event.data["status"] for event in events_of(scripted, job, "status")]
    assert statuses == ["queued", "starting", "running", "completed"]
    assert [event.data["lines"] for event in events_of(scripted, job, "log")] == [["training begins"]]
    assert attempt_of(scripted, job).exit_code == 0


def test_failure_names_the_childs_own_error(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("fail")
    job = make_job()
    scripted.run_until(ended(scripted, job))
    error = scripted.job(job).error
    assert scripted.job(job).status == JobStatus.FAILED
    assert error == {
        "kind": "job_failed",
        "message": "It did not work.",
        "advice": "Try less.",
        "log_tail": ["something is wrong"],
    }


def test_child_that_dies_leaves_its_last_words_and_the_queue_goes_on(
    scripted: ScriptedWorker, make_job: MakeJob
) -> None:
    scripted.follow("die")
    job = make_job()
    scripted.run_until(ended(scripted, job))
    died = scripted.job(job)
    assert died.status == JobStatus.FAILED
    assert died.error is not None
    assert died.error["kind"] == "child_died"
    assert "signal 9" in died.error["message"]
    assert died.error["log_tail"] == ["the last words"]
    with scripted.database.read() as session:
        assert read_series(session, job.key) == {"loss": [(1, 2.0)]}
    scripted.follow("complete")
    following = make_job()
    scripted.run_until(ended(scripted, following))
    assert scripted.job(following).status == JobStatus.COMPLETED


def run_and_cancel(scripted: ScriptedWorker, job: Job, *, save: bool = False) -> ProcessIdentity:
    """Let the job run, ask for its end, wait for it. Returns the child's identity."""
    scripted.run_until(lambda: scripted.job(job).phase == "train")
    attempt = attempt_of(scripted, job)
    identity = ProcessIdentity(attempt.pid or 0, attempt.pid_started_at or 0.0, attempt.boot_id or "")
    assert identity.lives()
    with scripted.database.write() as session:
        request_cancel(session, scripted.job(job), save=save)
    scripted.run_until(ended(scripted, job))
    return identity


def test_cancelled_job_is_cancelled_only_when_its_process_has_ended(
    scripted: ScriptedWorker, make_job: MakeJob
) -> None:
    scripted.follow("wait")
    job = make_job()
    identity = run_and_cancel(scripted, job)
    assert scripted.job(job).status == JobStatus.CANCELLED
    assert not identity.lives()
    statuses = [event.data["status"] for event in events_of(scripted, job, "status")]
    assert statuses == ["queued", "starting", "running", "stopping", "cancelled"]
    with scripted.database.read() as session:
        assert read_series(session, job.key, "loss") == {"loss": [(1, 2.0), (2, 1.5)]}


def test_stop_and_save_reaches_the_child_as_such(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("wait")
    job = make_job()
    run_and_cancel(scripted, job, save=True)
    with scripted.database.read() as session:
        assert read_series(session, job.key, "loss") == {"loss": [(1, 2.0), (2, 1.0)]}


def test_child_that_ignores_the_request_is_killed(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("ignore signals")
    job = make_job()
    identity = run_and_cancel(scripted, job)
    assert scripted.job(job).status == JobStatus.CANCELLED
    assert attempt_of(scripted, job).exit_code == -signal.SIGKILL
    assert not identity.lives()


def test_last_words_are_of_the_attempt_that_died_alone(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("wait")
    job = make_job()
    log = scripted.folder.job(job.key) / "train.log"
    scripted.run_until(lambda: scripted.job(job).phase == "train")
    log.write_text("of the first attempt\nhalf a line of it")
    scripted.take_over().interrupt(timeout_seconds=5)
    scripted.follow("die")
    scripted.run_until(ended(scripted, job))
    died = scripted.job(job)
    assert died.error is not None
    assert died.error["log_tail"] == ["the last words"]
    assert log.read_text().startswith("of the first attempt\nhalf a line of it")


def test_damaged_spool_fails_the_job_and_keeps_what_was_before(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("nonsense")
    job = make_job()
    scripted.run_until(ended(scripted, job))
    error = scripted.job(job).error
    assert error is not None
    assert "spool is damaged" in error["message"]
    assert error["log_tail"] == ["behind the damage"]
    with scripted.database.read() as session:
        assert read_series(session, job.key) == {"loss": [(1, 2.0)]}


def test_stopping_the_worker_ends_the_child_and_queues_the_job_again(
    scripted: ScriptedWorker, make_job: MakeJob
) -> None:
    scripted.follow("wait")
    job = make_job()
    scripted.run_until(lambda: scripted.job(job).phase == "train")
    pid = attempt_of(scripted, job).pid
    scripted.worker.stop()
    scripted.worker.run()
    assert scripted.job(job).status == JobStatus.QUEUED
    assert not psutil.pid_exists(pid or 0)
    with scripted.database.read() as session:
        assert session.get_one(WorkerState, 1).heartbeat_at == 0.0


def test_job_whose_dataset_is_gone_fails_and_the_queue_goes_on(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    job = make_job()
    with scripted.database.write() as session:
        stored = session.get_one(Job, job.id)
        stored.base_model_id = None
        session.add(stored)
    scripted.run_until(ended(scripted, job))
    assert scripted.job(job).status == JobStatus.FAILED


def test_readings_are_stored_with_and_without_a_job(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("wait")
    scripted.run_until(lambda: events_without_job(scripted) > 0)
    job = make_job()
    scripted.run_until(lambda: len(events_of(scripted, job, "gpu")) > 0)
    reading = events_of(scripted, job, "gpu")[0].data
    assert reading["available"] is False
    assert reading["devices"] == []
    assert reading["host"]["child_rss_bytes"] > 1_000_000
    with scripted.database.read() as session:
        state = session.get_one(WorkerState, 1)
        assert state.reading is not None
        assert state.reading["host"]["ram_total_bytes"] == psutil.virtual_memory().total


def events_without_job(scripted: ScriptedWorker) -> int:
    with scripted.database.read() as session:
        return len(session.exec(select(Event).where(Event.kind == "gpu", Event.job_id == None)).all())  # noqa: E711


def test_database_locked_for_long_costs_neither_worker_nor_job(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("wait")
    job = make_job()
    scripted.run_until(lambda: scripted.job(job).phase == "train")
    pid = attempt_of(scripted, job).pid
    thread = threading.Thread(target=scripted.worker.run)
    with scripted.database.write() as session:  # longer than the busy timeout of 5 s
        request_cancel(session, scripted.job(job))
        thread.start()
        time.sleep(6.5)
        assert thread.is_alive()
        assert psutil.pid_exists(pid or 0)
    deadline = time.monotonic() + 20
    while scripted.job(job).status not in ENDED:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    scripted.worker.stop()
    thread.join(timeout=20)
    assert scripted.job(job).status == JobStatus.CANCELLED
    assert scripted.job(job).attempts == 1


def test_planned_stops_are_no_losses(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("ignore signals")
    job = make_job()
    for attempt in range(1, 5):
        scripted.run_until(lambda n=attempt: scripted.job(job).attempts == n and scripted.job(job).phase == "train")
        scripted.take_over().interrupt(timeout_seconds=0.2)
        assert scripted.job(job).status == JobStatus.QUEUED


def test_stop_that_saved_while_the_worker_stopped_has_ended_the_job(
    scripted: ScriptedWorker, make_job: MakeJob
) -> None:
    scripted.follow("save")
    job = make_job()
    scripted.run_until(lambda: scripted.job(job).phase == "train")
    with scripted.database.write() as session:
        request_cancel(session, scripted.job(job), save=True)
    scripted.run_until(lambda: scripted.job(job).phase == "save")
    scripted.take_over().interrupt(timeout_seconds=5)
    stopped = scripted.job(job)
    assert (stopped.status, stopped.summary) == (JobStatus.CANCELLED, {"stopped_by_user": True})


def test_a_run_that_starts_again_shows_only_its_own_metrics(scripted: ScriptedWorker, make_job: MakeJob) -> None:
    scripted.follow("wait")
    job = make_job(r=4)
    scripted.run_until(lambda: scripted.job(job).phase == "train")
    with scripted.database.write() as session:
        put_metrics(session, job.key, 40, 0.0, {"loss": 0.1, "eval_loss": 0.2})
    scripted.take_over().interrupt(timeout_seconds=5)
    scripted.follow("complete")
    scripted.run_until(ended(scripted, job))
    with scripted.database.read() as session:
        assert read_series(session, job.key) == {"loss": [(1, 3.0), (2, 1.5), (3, 1.0)]}
    spec = parse_yaml((scripted.folder.job(job.key) / "spec.yaml").read_text())
    assert (spec.r, spec.base_model) == (4, "tiny")
