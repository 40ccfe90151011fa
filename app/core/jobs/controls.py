"""What can be asked of a job in which state, and the asking. Whatever the state forbids is refused with what it allows.

Call these inside `Database.write()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from sqlmodel import Session

from app.core.errors import Conflict, InvalidInput
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.states import State, list_states
from app.core.jobs.status import ACTIVE, ENDED, JobKind, JobStatus, status_words
from app.core.metrics.store import drop_metrics_after
from app.core.paths import DataFolder


class Action(StrEnum):
    """The last part of the address that does it, and the command's name."""

    CANCEL = "cancel"
    SAVE = "save"  # a checkpoint now, without an end
    SAMPLE = "sample"  # answers to its sample prompts now
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    EXTEND = "extend"
    MOVE = "move"
    CLONE = "clone"


_DONE = {
    Action.CANCEL: "cancelled",
    Action.SAVE: "saved now",
    Action.SAMPLE: "sampled now",
    Action.PAUSE: "paused",
    Action.RESUME: "resumed",
    Action.RETRY: "started again",
    Action.EXTEND: "extended",
    Action.MOVE: "moved",
    Action.CLONE: "cloned",
}


def describe_state(job: Job) -> str:
    """The job's status; where it is paused, or is to be, that."""
    return status_words(job.status, {}, paused=job.paused)


def possible_actions(folder: DataFolder, job: Job) -> list[Action]:
    """What the job's state allows."""
    if job.status in ENDED:
        return _of_ended(folder, job)
    actions = [Action.RESUME] if job.paused else []
    if job.status == JobStatus.QUEUED:
        actions += [] if job.paused else [Action.PAUSE]
        actions += [Action.MOVE] if job.kind != JobKind.PREVIEW else []
    if job.kind == JobKind.TRAIN:
        actions += _of_training(job)
    return [*actions, *([] if job.cancel_requested else [Action.CANCEL])]


def _of_training(job: Job) -> list[Action]:
    """Of one that has not ended."""
    if job.status == JobStatus.QUEUED and job.attempts:
        return [Action.RETRY, Action.CLONE]
    leaving = job.paused or job.cancel_requested or job.save_requested
    if leaving or job.status not in (JobStatus.STARTING, JobStatus.RUNNING):
        return [Action.CLONE]
    return [Action.PAUSE, *(_of_steps(job) if job.status == JobStatus.RUNNING else []), Action.CLONE]


def _of_steps(job: Job) -> list[Action]:
    return [Action.SAVE, *([Action.SAMPLE] if _may_sample(job) else [])]


def _may_sample(job: Job) -> bool:
    """Whether samples are on, and there are prompts: the spec's own or held-out rows."""
    spec = job.spec
    return bool(spec.get("sample_max_new_tokens") and (spec.get("sample_prompts") or spec.get("eval_fraction")))


def _of_ended(folder: DataFolder, job: Job) -> list[Action]:
    if job.kind != JobKind.TRAIN:
        return []
    go_on = Action.EXTEND if job.status == JobStatus.COMPLETED else Action.RESUME
    return [*([go_on] if list_states(folder, job) else []), Action.RETRY, Action.CLONE]


def require(folder: DataFolder, job: Job, action: Action, why: str = "", advice: str | None = None) -> None:
    """Raises: Conflict with the job's state, and what that allows; `why` says more of this action."""
    if action not in possible_actions(folder, job):
        kind = "" if job.kind == JobKind.TRAIN else f" ({job.kind})"
        message = f"Job {job.id}{kind} is {describe_state(job)}; it cannot be {_DONE[action]}{why}."
        raise refusal(folder, job, message, advice)


def refusal(folder: DataFolder, job: Job, message: str, advice: str | None = None) -> Conflict:
    """An error with the job's state, and what that allows."""
    possible = [action.value for action in possible_actions(folder, job)]
    return Conflict(message, advice=advice, state=describe_state(job), possible=possible)


def cancel(session: Session, folder: DataFolder, job: Job, *, save: bool = False) -> Job:
    """Cancel at once where no process runs, else ask the worker to. Raises: Conflict."""
    if job.status in ENDED:
        raise refusal(folder, job, f"Job {job.id} has already ended ({job.status}).")
    return queue.request_cancel(session, job, save=save)


def move(session: Session, folder: DataFolder, job: Job, to: int) -> Job:
    """Give a waiting job place `to` of the queue, from 1. Raises: Conflict."""
    require(folder, job, Action.MOVE)
    return queue.move(session, job, to)


def pause(session: Session, folder: DataFolder, job: Job) -> Job:
    """Hold a job that waits; have a training that runs save its state and end. Raises: Conflict."""
    why = "" if job.kind == JobKind.TRAIN or job.status not in ACTIVE else ": only a training has a state to save"
    require(folder, job, Action.PAUSE, why)
    return _set(session, job, paused=True, pause_reason=None)


def save_now(session: Session, folder: DataFolder, job: Job) -> Job:
    """Have a training that runs save a checkpoint and its state after the step in hand. Raises: Conflict."""
    require(folder, job, Action.SAVE)
    return _set(session, job, save_now_requested=True)


def sample_now(session: Session, folder: DataFolder, job: Job) -> Job:
    """Have a training that runs answer its sample prompts after the step in hand. Raises: Conflict."""
    silent = job.kind == JobKind.TRAIN and not _may_sample(job)
    why = ": it has no sample prompts, or `sample_max_new_tokens: 0` has switched samples off" if silent else ""
    require(folder, job, Action.SAMPLE, why)
    return _set(session, job, sample_now_requested=True)


def resume(session: Session, folder: DataFolder, job: Job) -> Job:
    """Let a paused job go on; queue an ended training again, to go on from its newest state. Raises: Conflict."""
    if job.status not in ENDED:
        require(folder, job, Action.RESUME)
        return _set(session, job, paused=False, pause_reason=None)
    require(folder, job, Action.RESUME, *_why_not_resumed(job))
    return start_again(session, job, list_states(folder, job)[-1].step)


def retry(session: Session, folder: DataFolder, job: Job, from_step: int = 0) -> Job:
    """Queue a training again, from the start or from the state of a step. What it saved stays until that is replaced.

    Raises: Conflict; InvalidInput where there is no state of that step.
    """
    require(folder, job, Action.RETRY)
    steps = [state.step for state in states_to_retry(folder, job)]
    if from_step and from_step not in steps:
        there = f"there are those of {', '.join(map(str, steps))}" if steps else "none is kept"
        raise InvalidInput(f"there is no training state of step {from_step}; {there}", field="from_step")
    if job.status == JobStatus.QUEUED:
        drop_metrics_after(session, job.key, from_step)
        return _set(session, job, start_from=from_step, paused=False, pause_reason=None, error=None)
    return start_again(session, job, from_step)


def states_to_retry(folder: DataFolder, job: Job) -> list[State]:
    """The job's states, by step, but for that of a completed run's end: nothing is left to do from there."""
    end = job.summary.get("steps") if job.status == JobStatus.COMPLETED else None
    return [state for state in list_states(folder, job) if end is None or state.step < end]


def start_again(session: Session, job: Job, step: int, **fields: Any) -> Job:
    """Queue an ended training at the end of the queue, to go on from `step`; what it came to behind that is void."""
    drop_metrics_after(session, job.key, step)
    fresh: dict[str, Any] = {
        "start_from": step,
        "step": step,
        "position": queue.last_position(session) + 1.0,
        "forgiven_attempts": job.attempts,
        "cancel_requested": False,
        "save_requested": False,
        "error": None,
        "summary": {},
        "started_at": None,
        "finished_at": None,
    }
    return queue.advance(session, job, JobStatus.QUEUED, **{**fresh, **fields})


def _why_not_resumed(job: Job) -> Sequence[str]:
    if job.kind != JobKind.TRAIN:
        return [": only a training goes on", "Ask for it again."]
    if job.status == JobStatus.COMPLETED:
        return [": it is done"]
    return [": no training state is kept", f"Start it from the beginning: loradeck jobs retry {job.id}"]


def _set(session: Session, job: Job, **fields: Any) -> Job:
    for name, value in fields.items():
        setattr(job, name, value)
    session.add(job)
    session.flush()
    queue.announce(session, job)
    return job
