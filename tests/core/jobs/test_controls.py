"""What each state allows, what is refused with it, and what an action leaves behind."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlmodel import Session

from app.core.errors import Conflict, InvalidInput
from app.core.events.log import read_after
from app.core.jobs import controls, queue
from app.core.jobs.controls import Action, possible_actions
from app.core.jobs.models import Job
from app.core.jobs.status import ENDED, JobKind, JobStatus, Lane
from app.core.metrics.store import put_metrics, read_series
from app.core.paths import DataFolder
from tests.core.jobs.test_queue import PATHS
from tests.saved_states import save_states

CLONE, CANCEL, RETRY, RESUME, PAUSE, MOVE = "clone", "cancel", "retry", "resume", "pause", "move"

SAMPLES = {"sample_max_new_tokens": 8, "sample_prompts": ["How?"], "eval_fraction": 0.0}


def job_in(session: Session, status: JobStatus, kind: JobKind = JobKind.TRAIN, **fields: Any) -> Job:
    job = queue.enqueue(session, Job(name="job", kind=kind, created_at=time.time()))
    for to in PATHS[status]:
        job = queue.advance(session, job, to)
    for name, value in fields.items():
        setattr(job, name, value)
    session.add(job)
    session.flush()
    return job


@pytest.mark.parametrize(
    ("status", "fields", "possible"),
    [
        (JobStatus.QUEUED, {}, [PAUSE, MOVE, CLONE, CANCEL]),
        (JobStatus.QUEUED, {"attempts": 1}, [PAUSE, MOVE, RETRY, CLONE, CANCEL]),
        (JobStatus.QUEUED, {"paused": True, "attempts": 1}, [RESUME, MOVE, RETRY, CLONE, CANCEL]),
        (JobStatus.STARTING, {}, [PAUSE, CLONE, CANCEL]),
        (JobStatus.RUNNING, {}, [PAUSE, "save", CLONE, CANCEL]),
        (JobStatus.RUNNING, {"spec": SAMPLES}, [PAUSE, "save", "sample", CLONE, CANCEL]),
        (JobStatus.RUNNING, {"spec": {**SAMPLES, "sample_max_new_tokens": 0}}, [PAUSE, "save", CLONE, CANCEL]),
        (JobStatus.RUNNING, {"spec": {**SAMPLES, "sample_prompts": []}}, [PAUSE, "save", CLONE, CANCEL]),
        (JobStatus.RUNNING, {"spec": SAMPLES, "paused": True}, [RESUME, CLONE, CANCEL]),
        (JobStatus.RUNNING, {"paused": True}, [RESUME, CLONE, CANCEL]),
        (JobStatus.RUNNING, {"save_requested": True}, [CLONE, CANCEL]),
        (JobStatus.RUNNING, {"cancel_requested": True}, [CLONE]),
        (JobStatus.STOPPING, {"paused": True}, [RESUME, CLONE, CANCEL]),
        (JobStatus.STOPPING, {}, [CLONE, CANCEL]),
        (JobStatus.INTERRUPTED, {}, [CLONE, CANCEL]),
        (JobStatus.COMPLETED, {}, ["extend", RETRY, CLONE]),
        (JobStatus.FAILED, {}, [RESUME, RETRY, CLONE]),
        (JobStatus.CANCELLED, {}, [RESUME, RETRY, CLONE]),
    ],
)
def test_each_state_allows_what_it_says_and_refuses_the_rest(
    session: Session, folder: DataFolder, status: JobStatus, fields: dict[str, Any], possible: list[str]
) -> None:
    """Each action is tried: what is not in the list is a conflict that holds state and list, and changes nothing."""
    job = job_in(session, status, **fields)
    save_states(folder, job, 2, 4)
    assert [action.value for action in possible_actions(folder, job)] == possible
    before = job.model_dump()
    for name, ask in ASKED.items():
        if name not in possible and not (name == CANCEL and status not in ENDED):  # asking twice changes nothing
            with pytest.raises(Conflict) as refused:
                ask(session, folder, job)
            error = refused.value.to_json()
            assert (error["state"], error["possible"]) == (controls.describe_state(job), possible), name
    assert queue.get_job(session, job.key).model_dump() == before


ASKED: dict[str, Any] = {
    PAUSE: controls.pause,
    RESUME: controls.resume,
    RETRY: controls.retry,
    "save": controls.save_now,
    "sample": controls.sample_now,
    CANCEL: controls.cancel,
    MOVE: lambda session, folder, job: controls.move(session, folder, job, 1),
}


@pytest.mark.parametrize("status", sorted(JobStatus))
def test_what_is_no_training_is_held_moved_and_cancelled_alone(
    session: Session, folder: DataFolder, status: JobStatus
) -> None:
    job = job_in(session, status, JobKind.MERGE)
    expected = [CANCEL] if status not in ENDED else []
    expected = [PAUSE, MOVE, CANCEL] if status == JobStatus.QUEUED else expected
    assert possible_actions(folder, job) == expected


def test_a_merge_that_runs_has_no_state_to_pause_with(session: Session, folder: DataFolder) -> None:
    job = job_in(session, JobStatus.RUNNING, JobKind.MERGE)
    with pytest.raises(Conflict, match=r"\(merge\) is running; it cannot be paused: only a training has a state"):
        controls.pause(session, folder, job)


def test_a_paused_job_waits_while_others_start(session: Session, folder: DataFolder) -> None:
    first, second = job_in(session, JobStatus.QUEUED), job_in(session, JobStatus.QUEUED)
    controls.pause(session, folder, first)
    claimed, _ = queue.claim_next(session, Lane.GPU) or pytest.fail("nothing was claimed")
    assert claimed.id == second.id
    assert queue.claim_next(session, Lane.GPU) is None
    controls.resume(session, folder, first)
    claimed, _ = queue.claim_next(session, Lane.GPU) or pytest.fail("nothing was claimed")
    assert claimed.id == first.id


def test_pausing_and_resuming_are_told(session: Session, folder: DataFolder) -> None:
    job = job_in(session, JobStatus.QUEUED)
    controls.pause(session, folder, job)
    controls.resume(session, folder, job)
    session.flush()
    told = [(event.data["status"], event.data["paused"]) for event in read_after(session, 0, job_id=job.id)]
    assert told == [("queued", False), ("queued", True), ("queued", False)]


def test_a_running_training_that_was_paused_waits_once_its_process_has_ended(
    session: Session, folder: DataFolder
) -> None:
    job = controls.pause(session, folder, job_in(session, JobStatus.RUNNING))
    assert (job.status, job.paused) == (JobStatus.RUNNING, True)
    job = queue.interrupt(session, job)
    assert (job.status, job.paused) == (JobStatus.QUEUED, True)
    assert queue.claim_next(session) is None


def test_an_end_forgets_what_was_asked(session: Session, folder: DataFolder) -> None:
    job = controls.save_now(session, folder, job_in(session, JobStatus.RUNNING, spec=SAMPLES))
    job = controls.sample_now(session, folder, job)
    job = controls.pause(session, folder, job)
    job = queue.advance(session, job, JobStatus.COMPLETED)
    assert (job.paused, job.save_now_requested, job.sample_now_requested) == (False, False, False)


def test_samples_that_a_training_cannot_give_are_refused_with_the_reason(session: Session, folder: DataFolder) -> None:
    job = job_in(session, JobStatus.RUNNING, spec={**SAMPLES, "sample_max_new_tokens": 0})
    with pytest.raises(Conflict, match="cannot be sampled now: it has no sample prompts, or `sample_max_new_tokens"):
        controls.sample_now(session, folder, job)


def test_an_ended_training_goes_on_from_its_newest_state_at_the_end_of_the_queue(
    session: Session, folder: DataFolder
) -> None:
    waiting = job_in(session, JobStatus.QUEUED)
    ended = {"attempts": 3, "cancel_requested": True, "summary": {"stopped_by_user": True}, "error": {"kind": "x"}}
    job = job_in(session, JobStatus.CANCELLED, **ended)
    save_states(folder, job, 2, 4)
    for step in (2, 4, 5):
        put_metrics(session, job.key, step, 0.0, {"loss": 1.0})
    job = controls.resume(session, folder, job)
    assert (job.status, job.start_from, job.step, job.forgiven_attempts) == (JobStatus.QUEUED, 4, 4, 3)
    assert (job.cancel_requested, job.summary, job.error, job.finished_at) == (False, {}, None, None)
    assert job.position > waiting.position
    assert [step for step, _ in read_series(session, job.key)["loss"]] == [2, 4]


def test_a_retry_starts_anew_unless_a_state_is_named(session: Session, folder: DataFolder) -> None:
    job = job_in(session, JobStatus.COMPLETED, summary={"train_loss": 1.0})
    save_states(folder, job, 2, 4)
    put_metrics(session, job.key, 2, 0.0, {"loss": 1.0})
    with pytest.raises(InvalidInput, match="no training state of step 3; there are those of 2, 4"):
        controls.retry(session, folder, job, 3)
    again = controls.retry(session, folder, job, 2)
    assert (again.start_from, [*read_series(session, job.key)]) == (2, ["loss"])
    again = controls.retry(session, folder, queue.advance(session, again, JobStatus.FAILED))
    assert (again.status, again.start_from, again.step, read_series(session, job.key)) == (JobStatus.QUEUED, 0, 0, {})


def test_a_completed_run_is_not_started_again_from_its_end(session: Session, folder: DataFolder) -> None:
    job = job_in(session, JobStatus.COMPLETED, summary={"steps": 4})
    save_states(folder, job, 2, 4)
    assert [state.step for state in controls.states_to_retry(folder, job)] == [2]
    with pytest.raises(InvalidInput, match="no training state of step 4; there are those of 2"):
        controls.retry(session, folder, job, 4)


def test_a_job_that_waits_to_go_on_can_start_anew_instead(session: Session, folder: DataFolder) -> None:
    job = job_in(session, JobStatus.QUEUED, attempts=1, paused=True, pause_reason={"kind": "disk_full"})
    position = job.position
    job = controls.retry(session, folder, job)
    assert (job.start_from, job.paused, job.pause_reason, job.position) == (0, False, None, position)


def test_without_a_state_nothing_is_resumed(session: Session, folder: DataFolder) -> None:
    job = job_in(session, JobStatus.FAILED)
    with pytest.raises(Conflict, match="no training state is kept") as refused:
        controls.resume(session, folder, job)
    assert refused.value.advice == f"Start it from the beginning: loradeck jobs retry {job.id}"
    assert refused.value.possible == [Action.RETRY, Action.CLONE]
