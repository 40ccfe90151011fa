"""The queue: who is next, who may move a job, and what each move leaves behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlmodel import Session, col, select

from app.core.database import Database
from app.core.datasets.hub import HubReference, add_from_hub
from app.core.datasets.models import DatasetStatus
from app.core.errors import Conflict, NotFound
from app.core.events.log import read_after
from app.core.jobs import queue
from app.core.jobs.losses import LIMITS, Cause, count_losses
from app.core.jobs.models import Attempt, Job
from app.core.jobs.queries import queue_position, queued_jobs
from app.core.jobs.status import ACTIVE, ENDED, TRANSITIONS, JobKind, JobStatus, Lane
from app.core.models.models import BaseModel, ModelStatus
from app.core.models.registry import add_imported

CLAIM_ALL = """
import sys
import time
from app.core.database import Database
from app.core.jobs import queue
import app.core.tables

database = Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
while True:
    with database.write() as session:
        claimed = queue.claim_next(session)
        if claimed is None:
            break
        print(claimed[0].id, claimed[0].fence, flush=True)
    time.sleep(0.005)  # SQLite's waiters poll: without a pause one process may keep the lock to itself
"""
ONCE = (
    "The host ran out of memory under it; it goes on from what it has saved. This was time 1, and time 2 ends it. "
    "The last time: The kernel killed it."
)
# The moves that lead a new job into each state.
PATHS: dict[JobStatus, list[JobStatus]] = {
    JobStatus.QUEUED: [],
    JobStatus.STARTING: [JobStatus.STARTING],
    JobStatus.RUNNING: [JobStatus.STARTING, JobStatus.RUNNING],
    JobStatus.STOPPING: [JobStatus.STARTING, JobStatus.RUNNING, JobStatus.STOPPING],
    JobStatus.INTERRUPTED: [JobStatus.STARTING, JobStatus.INTERRUPTED],
    JobStatus.COMPLETED: [JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED],
    JobStatus.FAILED: [JobStatus.STARTING, JobStatus.FAILED],
    JobStatus.CANCELLED: [JobStatus.CANCELLED],
}


def _job(session: Session, name: str = "job", **fields: Any) -> Job:
    return queue.enqueue(session, Job(name=name, kind=JobKind.TRAIN, created_at=time.time(), **fields))


def _job_in(session: Session, status: JobStatus) -> Job:
    job = _job(session)
    for step in PATHS[status]:
        job = queue.advance(session, job, step)
    return job


def _claim_names(session: Session) -> list[str]:
    names = []
    for lane in (Lane.MODEL, Lane.DATA, Lane.CHECK, Lane.GPU, Lane.VIEW):
        while (claimed := queue.claim_next(session, lane)) is not None:
            names.append(claimed[0].name)
    return names


def _events(session: Session, job: Job) -> list[tuple[str, str]]:
    session.flush()
    return [(event.kind, event.data["status"]) for event in read_after(session, 0, job_id=job.id)]


def test_every_state_has_its_moves_and_from_an_end_it_is_a_new_start() -> None:
    assert set(TRANSITIONS) == set(JobStatus)
    assert {status for status, to in TRANSITIONS.items() if to == {JobStatus.QUEUED}} == ENDED
    assert not ACTIVE & ENDED
    for status in ACTIVE:  # whatever runs can end in every way, and can be lost
        assert ENDED | {JobStatus.INTERRUPTED} <= TRANSITIONS[status]


def test_jobs_are_claimed_in_order_of_priority_then_position(session: Session) -> None:
    for name, priority in (("first", 0), ("second", 0), ("urgent", 5), ("third", 0)):
        _job(session, name, priority=priority)
    session.execute(text("UPDATE job SET position = 0.5 WHERE name = 'third'"))
    assert _claim_names(session) == ["urgent", "third", "first", "second"]


def test_a_claim_starts_an_attempt_and_clears_what_the_last_one_left(session: Session) -> None:
    job = _job(session)
    session.execute(text("UPDATE job SET phase = 'train', step = 7, eta_seconds = 3, error = '{}', finished_at = 1"))
    claimed, attempt = queue.claim_next(session) or pytest.fail("nothing was claimed")
    assert claimed.id == job.id
    assert (claimed.status, claimed.attempts, claimed.fence) == (JobStatus.STARTING, 1, 1)
    assert (claimed.phase, claimed.step, claimed.eta_seconds, claimed.error, claimed.finished_at) == (
        None, 7, None, None, None,
    )  # fmt: skip
    assert claimed.started_at == pytest.approx(time.time(), abs=5)
    assert (attempt.job_id, attempt.number, attempt.fence) == (job.id, 1, 1)


def test_a_lost_job_goes_before_one_that_came_while_it_ran(session: Session) -> None:
    _job(session, "first"), _job(session, "second")
    queue.claim_next(session)
    queue.advance(session, _claimed(session), JobStatus.INTERRUPTED)
    lost = queue.get_job(session, 2)
    _job(session, "third")
    queue.advance(session, lost, JobStatus.QUEUED)
    assert _claim_names(session) == ["second", "third"]


def test_only_a_training_goes_on_from_where_it_was(session: Session) -> None:
    job = queue.enqueue(session, Job(name="merge", kind=JobKind.MERGE, created_at=0.0))
    session.execute(text("UPDATE job SET step = 7"))
    claimed, _ = queue.claim_next(session, Lane.MERGE) or pytest.fail("nothing was claimed")
    assert (claimed.id, claimed.step) == (job.id, 0)


@pytest.mark.parametrize(
    ("name", "to", "order"),
    [
        ("c", 1, ["c", "urgent", "a", "b", "d"]),
        ("c", 2, ["urgent", "c", "a", "b", "d"]),
        ("a", 4, ["urgent", "b", "c", "a", "d"]),
        ("a", 2, ["urgent", "a", "b", "c", "d"]),
        ("b", 99, ["urgent", "a", "c", "d", "b"]),
        ("urgent", 3, ["a", "b", "urgent", "c", "d"]),
        ("urgent", 5, ["a", "b", "c", "d", "urgent"]),
    ],
)
def test_a_moved_job_has_its_place_and_the_others_keep_their_order(
    session: Session, name: str, to: int, order: list[str]
) -> None:
    jobs = {each: _job(session, each, priority=5 if each == "urgent" else 0) for each in ("a", "b", "urgent", "c", "d")}
    moved = queue.move(session, jobs[name], to)
    assert queue_position(session, moved) == min(to, 5)
    assert _events(session, moved) == [("status", "queued"), ("status", "queued")]
    assert [job.name for job in queued_jobs(session)] == order
    assert _claim_names(session) == order


def test_the_only_job_that_waits_stays_where_it_is(session: Session) -> None:
    _job(session, "later", priority=-1)
    queue.claim_next(session)
    job = _job(session, priority=3)
    assert (queue.move(session, job, 7).priority, queue_position(session, job)) == (3, 1)


@pytest.mark.parametrize("status", sorted(set(JobStatus) - {JobStatus.QUEUED}))
def test_a_job_that_does_not_wait_is_not_moved(session: Session, status: JobStatus) -> None:
    with pytest.raises(Conflict, match=f"is {status}; only a queued job can be moved"):
        queue.move(session, _job_in(session, status), 1)


def test_nothing_is_claimed_from_an_empty_queue(session: Session) -> None:
    assert queue.claim_next(session) is None
    for status in JobStatus:
        if status != JobStatus.QUEUED:
            _job_in(session, status)
    assert queue.claim_next(session) is None


def test_every_kind_of_job_has_one_lane(session: Session) -> None:
    add_imported(session, "m", {"kind": "demo"})
    add_from_hub(session, HubReference("owner/d"))
    for kind in sorted(set(JobKind) - {JobKind.IMPORT}):
        queue.enqueue(session, Job(name=kind, kind=kind, created_at=0))
    queue.enqueue(session, Job(name="aside", kind=JobKind.PLAYGROUND, spec={"device": "cpu"}, created_at=0))
    queue.enqueue(session, Job(name="upload", kind=JobKind.EXPORT, spec={"format": "hub"}, created_at=0))
    claimed: dict[Lane, list[str]] = {lane: [] for lane in Lane}
    for lane, names in claimed.items():
        while (found := queue.claim_next(session, lane)) is not None:
            names.append(found[0].name)
    assert claimed == {
        Lane.GPU: ["playground", "train"],
        Lane.CHAT: ["aside"],
        Lane.MODEL: ["import m"],
        Lane.DATA: ["import d", "adapter"],
        Lane.MERGE: ["merge"],
        Lane.EXPORT: ["export"],
        Lane.UPLOAD: ["upload"],
        Lane.CHECK: ["check"],
        Lane.VIEW: ["preview"],
    }


def test_a_preview_takes_no_place_in_the_queue(session: Session) -> None:
    first, last = _job(session, "first"), _job(session, "last")
    preview = queue.enqueue(session, Job(name="p", kind=JobKind.PREVIEW, priority=9, created_at=0))
    assert [queue_position(session, job) for job in (first, last, preview)] == [1, 2, None]
    queue.move(session, last, 1)
    assert [job.name for job in queued_jobs(session)] == ["last", "first"]
    assert queue.get_job(session, last.key).priority == 0


def test_a_job_waits_for_its_model_and_the_import_goes_first(session: Session) -> None:
    model = add_imported(session, "coming", {"kind": "demo"})
    _job(session, "needs the model", base_model_id=model.id, priority=50)
    _job(session, "needs nothing")
    assert _claim_names(session) == ["import coming", "needs nothing"]
    model.status = ModelStatus.READY
    assert _claim_names(session) == ["needs the model"]


def test_a_job_waits_for_its_dataset_and_the_import_goes_first(session: Session) -> None:
    dataset = add_from_hub(session, HubReference("owner/coming"))
    _job(session, "needs the dataset", dataset_id=dataset.id, priority=50)
    _job(session, "needs nothing")
    assert _claim_names(session) == ["import coming", "needs nothing"]
    dataset.status = DatasetStatus.READY
    assert _claim_names(session) == ["needs the dataset"]


def test_a_job_waits_for_both_its_model_and_its_dataset(session: Session) -> None:
    model, dataset = add_imported(session, "m", {"kind": "demo"}), add_from_hub(session, HubReference("owner/d"))
    _job(session, "needs both", base_model_id=model.id, dataset_id=dataset.id)
    assert _claim_names(session) == ["import m", "import d"]
    model.status = ModelStatus.READY
    assert _claim_names(session) == []
    dataset.status = DatasetStatus.READY
    assert _claim_names(session) == ["needs both"]


def test_many_processes_claim_no_job_twice(database: Database) -> None:
    jobs = 210
    with database.write() as session:
        for number in range(jobs):
            _job(session, f"job {number}")
    command = [sys.executable, "-c", CLAIM_ALL, str(database.engine.url)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    claimers = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for claimer in claimers:
        assert claimer.stdout.readline() == "ready\n"  # type: ignore[union-attr]
    for claimer in claimers:
        claimer.stdin.write("\n")  # type: ignore[union-attr]
        claimer.stdin.flush()  # type: ignore[union-attr]
    claims = [claimer.communicate(timeout=60)[0].splitlines() for claimer in claimers]
    assert [claimer.returncode for claimer in claimers] == [0, 0, 0]
    assert sum(bool(mine) for mine in claims) >= 2, "one process took all: nothing was contended"
    assert Counter(line for mine in claims for line in mine) == {f"{number} 1": 1 for number in range(1, jobs + 1)}
    with database.read() as session:
        assert len(session.exec(select(Attempt)).all()) == jobs


def test_each_move_is_allowed_or_refused_as_the_table_says(session: Session) -> None:
    for status in JobStatus:
        for to in JobStatus:
            job = _job_in(session, status)
            if to in TRANSITIONS[status]:
                assert queue.advance(session, job, to).status == to
            else:
                with pytest.raises(Conflict, match=f"is {status}; it cannot become {to}"):
                    queue.advance(session, job, to)
                assert queue.get_job(session, job.key).status == status


def test_a_job_that_has_moved_on_is_not_moved_again(database: Database) -> None:
    with database.write() as session:
        _job(session)
    with database.read() as session:
        seen = queue.get_job(session, 1)
    with database.write() as session:
        queue.request_cancel(session, queue.get_job(session, 1))
    with pytest.raises(Conflict, match="has moved on since it was read as queued"), database.write() as session:
        queue.advance(session, seen, JobStatus.STARTING)
    with database.read() as session:
        assert queue.get_job(session, 1).status == JobStatus.CANCELLED


def test_an_older_claim_cannot_write(database: Database) -> None:
    """The job was lost and claimed again: what holds the first claim is refused, though the status is the same."""
    with database.write() as session:
        _job(session)
        stale, _ = queue.claim_next(session) or pytest.fail("nothing was claimed")
    with database.write() as session:
        queue.interrupt(session, queue.get_job(session, 1))
        again, _ = queue.claim_next(session) or pytest.fail("nothing was claimed")
    assert (stale.status, stale.fence, again.status, again.fence) == ("starting", 1, "starting", 2)
    with pytest.raises(Conflict, match="has moved on"), database.write() as session:
        queue.advance(session, stale, JobStatus.RUNNING)
    with database.write() as session:
        queue.advance(session, again, JobStatus.RUNNING)


def test_a_refused_move_leaves_no_event(database: Database) -> None:
    with database.write() as session:
        job = _job(session)
    with database.write() as session:
        session.execute(update(Job).where(col(Job.id) == job.id).values(fence=9))
    with pytest.raises(Conflict), database.write() as session:
        queue.advance(session, job, JobStatus.STARTING)
    with database.read() as session:
        assert _events(session, job) == [("status", "queued")]


def test_each_move_leaves_an_event_and_the_last_one_says_finished(session: Session) -> None:
    job = _job_in(session, JobStatus.COMPLETED)
    expected = [("status", status) for status in ("queued", "starting", "running", "completed")]
    assert _events(session, job) == [*expected, ("finished", "completed")]
    claimed = _job(session)
    queue.claim_next(session)
    assert _events(session, claimed) == [("status", "queued"), ("status", "starting")]


def test_an_event_carries_what_the_page_shows(session: Session) -> None:
    job = queue.advance(session, _job(session, "mine"), JobStatus.STARTING)
    error = {"kind": "out_of_memory", "message": "m", "advice": "a"}
    queue.advance(session, job, JobStatus.FAILED, error=error, summary={"loss": 1})
    session.flush()
    finished = read_after(session, 0, job_id=job.id)[-1]
    assert finished.data == {
        "status": "failed", "name": "mine", "kind": "train", "error": error, "summary": {"loss": 1},
    }  # fmt: skip


@pytest.mark.parametrize("end", sorted(ENDED))
def test_an_ended_job_has_an_end_and_neither_phase_nor_eta(session: Session, end: JobStatus) -> None:
    job = _job_in(session, JobStatus.RUNNING)
    session.execute(text("UPDATE job SET eta_seconds = 9, phase = 'sample', step = 4, max_steps = 10"))
    job = queue.advance(session, queue.get_job(session, job.key), end)
    assert (job.eta_seconds, job.phase) == (None, None)
    assert (job.step, job.max_steps) == (4, 10), "a training may end before its last step, and says at which"
    assert job.finished_at == pytest.approx(time.time(), abs=5)


@pytest.mark.parametrize("kind", sorted(set(JobKind) - {JobKind.TRAIN}))
def test_progress_of_what_counts_no_training_steps_ends_with_its_job(session: Session, kind: JobKind) -> None:
    job = queue.enqueue(session, Job(name="x", kind=kind, created_at=0))
    for to in PATHS[JobStatus.RUNNING]:
        job = queue.advance(session, job, to, step=51, max_steps=128)
    job = queue.advance(session, job, JobStatus.COMPLETED)
    assert (job.step, job.max_steps) == (0, None)


def test_a_job_that_waits_again_is_in_no_phase(session: Session) -> None:
    job = queue.advance(session, _job_in(session, JobStatus.STARTING), JobStatus.RUNNING, phase="train", eta_seconds=5)
    job = queue.interrupt(session, job)
    assert (job.status, job.phase, job.eta_seconds) == (JobStatus.QUEUED, None, None)


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.INTERRUPTED])
def test_cancel_without_a_process_is_done_at_once(session: Session, status: JobStatus) -> None:
    job = queue.request_cancel(session, _job_in(session, status))
    assert (job.status, job.cancel_requested) == (JobStatus.CANCELLED, True)
    assert _events(session, job)[-1] == ("finished", "cancelled")


@pytest.mark.parametrize("status", sorted(ACTIVE))
def test_cancel_with_a_process_asks_the_worker(session: Session, status: JobStatus) -> None:
    """Cancelled means that the process was seen to end, so only the worker can say it."""
    job = queue.request_cancel(session, _job_in(session, status))
    assert (job.status, job.cancel_requested, job.save_requested) == (status, True, False)


def test_cancel_with_save_asks_for_the_adapter(session: Session) -> None:
    job = queue.request_cancel(session, _job_in(session, JobStatus.RUNNING), save=True)
    assert (job.status, job.cancel_requested, job.save_requested) == (JobStatus.RUNNING, False, True)


@pytest.mark.parametrize("status", sorted(ENDED))
def test_cancel_of_an_ended_job_is_refused(session: Session, status: JobStatus) -> None:
    with pytest.raises(Conflict, match=rf"has already ended \({status}\)"):
        queue.request_cancel(session, _job_in(session, status))


def test_a_lost_job_is_queued_again_at_its_place_until_it_was_lost_too_often(session: Session) -> None:
    job = _job(session)
    _job(session, "later")
    often = LIMITS[Cause.PROCESS_LOST].times
    for attempt in range(1, often):
        claimed, _ = queue.claim_next(session) or pytest.fail("nothing was claimed")
        assert (claimed.id, claimed.attempts) == (job.id, attempt)
        assert queue.interrupt(session, claimed).status == JobStatus.QUEUED
    claimed, _ = queue.claim_next(session) or pytest.fail("nothing was claimed")
    lost = queue.interrupt(session, claimed)
    assert lost.status == JobStatus.FAILED
    assert lost.error == {
        "kind": "interrupted",
        "message": "Its process was lost 3 times.",
        "advice": "Look at the log's last lines, then go on by `loradeck jobs resume 1`, "
        "start again by `loradeck jobs retry 1`.",
    }
    statuses = [status for kind, status in _events(session, job) if kind == "status"]
    assert statuses == ["queued", *["starting", "interrupted", "queued"] * (often - 1), "starting",
                        "interrupted", "failed"]  # fmt: skip


def test_a_second_loss_to_the_hosts_memory_is_the_last_and_keeps_what_was_told(session: Session) -> None:
    """Losses are counted by cause, and those before somebody started the job again count no more."""
    error = {"kind": "host_out_of_memory", "message": "The kernel killed it.", "advice": "a", "autopsy": {"step": 3}}
    queue.interrupt(session, _claimed(session, _job(session)))
    lost = queue.interrupt(session, _claimed(session), Cause.HOST_OUT_OF_MEMORY, error)
    assert (lost.status, lost.error) == (JobStatus.QUEUED, {**error, "message": ONCE})
    failed = queue.interrupt(session, _claimed(session), Cause.HOST_OUT_OF_MEMORY, error)
    twice = "The host ran out of memory under it 2 times. The last time: The kernel killed it."
    assert (failed.status, failed.error) == (JobStatus.FAILED, {**error, "message": twice})
    assert count_losses(session, failed) == {Cause.PROCESS_LOST: 1, Cause.HOST_OUT_OF_MEMORY: 2}
    again = queue.advance(session, failed, JobStatus.QUEUED, forgiven_attempts=failed.attempts)
    assert count_losses(session, again) == {}
    assert queue.interrupt(session, _claimed(session), Cause.HOST_OUT_OF_MEMORY, error).status == JobStatus.QUEUED


def test_a_planned_stop_is_no_loss(session: Session) -> None:
    job = _job(session)
    for _ in range(5):
        claimed = _claimed(session)
        session.get_one(Attempt, (job.key, claimed.attempts)).outcome = {"outcome": "interrupted"}
        assert queue.interrupt(session, claimed).status == JobStatus.QUEUED
    assert count_losses(session, job) == {}


def test_a_job_for_which_the_disk_is_full_waits_and_is_not_claimed(session: Session) -> None:
    error = {"kind": "disk_full", "message": "step-4 needs 9 MiB.", "advice": "Make room."}
    _job(session)
    job = queue.interrupt(session, _claimed(session), Cause.DISK_FULL, error)
    assert (job.status, job.paused, job.error) == (JobStatus.QUEUED, True, None)
    assert (job.pause_reason or {})["kind"] == "disk_full"
    assert (job.pause_reason or {})["message"].endswith("The last time: step-4 needs 9 MiB.")
    assert queue.claim_next(session) is None


def _claimed(session: Session, _job: Job | None = None) -> Job:
    claimed, _ = queue.claim_next(session) or pytest.fail("nothing was claimed")
    return claimed


def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(session: Session) -> None:
    job = queue.request_cancel(session, _job_in(session, JobStatus.RUNNING))
    assert queue.interrupt(session, job).status == JobStatus.CANCELLED


def _with_import(session: Session) -> tuple[BaseModel, Job, Job]:
    model = add_imported(session, "coming", {"kind": "demo"})
    waiting = _job(session, "waits", base_model_id=model.id)
    claimed, _ = queue.claim_next(session, Lane.MODEL) or pytest.fail("the import was not claimed")
    return model, claimed, waiting


def test_a_failed_import_fails_its_model_and_the_jobs_that_wait(session: Session) -> None:
    model, importing, waiting = _with_import(session)
    other = _job(session, "needs nothing")
    queue.advance(session, importing, JobStatus.FAILED, error={"kind": "x", "message": "disk full", "advice": None})
    assert (model.status, model.error) == (ModelStatus.FAILED, "disk full")
    waiting = queue.get_job(session, waiting.key)
    assert waiting.status == JobStatus.FAILED
    assert waiting.error == {
        "kind": "model_import",
        "message": "Base model coming is not available: disk full",
        "advice": "Press “Import again” on the Models page, then submit this job again.",
    }
    assert _events(session, waiting)[-1] == ("finished", "failed")
    assert queue.get_job(session, other.key).status == JobStatus.QUEUED


def test_a_cancelled_import_fails_the_jobs_that_wait(session: Session) -> None:
    model, importing, waiting = _with_import(session)
    queue.advance(session, importing, JobStatus.CANCELLED)
    assert (model.status, model.error) == (ModelStatus.FAILED, "its import was cancelled")
    assert queue.get_job(session, waiting.key).status == JobStatus.FAILED


def test_a_failed_import_fails_its_dataset_and_the_jobs_that_wait(session: Session) -> None:
    dataset = add_from_hub(session, HubReference("owner/coming"))
    waiting, other = _job(session, "waits", dataset_id=dataset.id), _job(session, "needs nothing")
    importing, _ = queue.claim_next(session, Lane.DATA) or pytest.fail("the import was not claimed")
    error = {"kind": "x", "message": "It has two splits.", "advice": "Name one."}
    queue.advance(session, importing, JobStatus.FAILED, error=error)
    assert (dataset.status, dataset.error) == (DatasetStatus.FAILED, "It has two splits. Name one.")
    waiting = queue.get_job(session, waiting.key)
    assert (waiting.status, waiting.error) == (
        JobStatus.FAILED,
        {
            "kind": "dataset_import",
            "message": "Dataset coming is not available: It has two splits.",
            "advice": "Press “Import again” on its page, then submit this job again.",
        },
    )
    assert queue.get_job(session, other.key).status == JobStatus.QUEUED


def test_a_cancelled_import_fails_its_dataset(session: Session) -> None:
    dataset = add_from_hub(session, HubReference("owner/coming"))
    importing, _ = queue.claim_next(session, Lane.DATA) or pytest.fail("the import was not claimed")
    queue.advance(session, importing, JobStatus.CANCELLED)
    assert (dataset.status, dataset.error) == (DatasetStatus.FAILED, "its import was cancelled")


def test_an_import_that_is_lost_is_tried_again(session: Session) -> None:
    model, importing, waiting = _with_import(session)
    queue.interrupt(session, importing)
    assert model.status == ModelStatus.IMPORTING
    assert queue.get_job(session, waiting.key).status == JobStatus.QUEUED


def test_a_failed_training_leaves_its_model_alone(session: Session, make_ready: Callable[[], BaseModel]) -> None:
    model = make_ready()
    job = queue.advance(session, _job(session, base_model_id=model.id), JobStatus.STARTING)
    other = _job(session, base_model_id=model.id)
    queue.advance(session, job, JobStatus.FAILED)
    assert model.status == ModelStatus.READY
    assert queue.get_job(session, other.key).status == JobStatus.QUEUED


@pytest.fixture
def make_ready(session: Session) -> Callable[[], BaseModel]:
    def make() -> BaseModel:
        model = BaseModel(name="ready", status=ModelStatus.READY, created_at=0)
        session.add(model)
        session.flush()
        return model

    return make


@pytest.mark.parametrize("job_id", [0, -1, 1, 2**63 - 1, 2**63, 10**30])
def test_there_is_no_such_job(session: Session, job_id: int) -> None:
    with pytest.raises(NotFound, match=f"There is no job {job_id}"):
        queue.get_job(session, job_id)
