"""Start a chat with what a job has trained, ask in it, stop an answer, end it.

A chat is a job of the kind `playground` whose process keeps the model for further questions. It has ended once that
process has, and is queued again with the next question. Call these inside `Database.write()`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session

from app.core.artifacts.models import Artifact
from app.core.artifacts.store import find_artifact, trained_kind
from app.core.chats.models import ChatTurn, Side
from app.core.chats.turns import CANCELLED, close_open_turns, close_turn, find_open_turn, is_chat, sides_of
from app.core.errors import Conflict, Fault, NotFound
from app.core.jobs import queue
from app.core.jobs.answers import PRIORITY, check_question
from app.core.jobs.controls import start_again
from app.core.jobs.models import Job
from app.core.jobs.status import ENDED, WITH_ADAPTER, JobKind, JobStatus

DEVICES = ("auto", "cpu")  # auto: the GPU where there is one, once it is free; cpu: now, beside what trains
IDLE_SECONDS = 300.0  # without a question; then the process ends, and its memory is free


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of whom. `sampling` are fields of `app.core.jobs.sampling.Sampling`."""

    prompt: str
    sides: Sequence[str] = (Side.TUNED,)
    system: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)


def find_trained(session: Session, source: Job, step: int | None = None) -> Artifact | None:
    """What answers for the tuned side: the job's result, or its checkpoint at a step."""
    kind = trained_kind(source) if step is None else "checkpoint"
    return find_artifact(session, source, kind, step)


def start_chat(
    session: Session, source: Job, question: Question, *, step: int | None = None, device: str = "auto"
) -> Job:
    """Queue a chat with its first question. Raises: InvalidInput with every fault at its field, Conflict."""
    if source.kind not in WITH_ADAPTER:
        raise Conflict(f"Job {source.id} is not a training job ({source.kind}); there is nothing to chat with.")
    turn = _make_turn(session, source, step, question, device)
    spec = {"chat": True, "job": source.id, "step": step, "device": device}
    chat = Job(
        name=f"chat with {source.name}"[:200],
        kind=JobKind.PLAYGROUND,
        spec=spec,
        base_model_id=source.base_model_id,
        source_job_id=source.id,
        priority=PRIORITY,
        created_at=time.time(),
    )
    queue.enqueue(session, chat)
    turn.job_id = chat.key
    session.add(turn)
    session.flush()
    return chat


def ask(session: Session, chat: Job, question: Question, *, device: str = "auto") -> ChatTurn:
    """Add a question; a chat that has ended is queued again, for `device`. Raises: InvalidInput, Conflict."""
    require_chat(chat)
    if chat.status in ENDED:
        close_open_turns(session, chat)
    elif find_open_turn(session, chat.key) is not None:
        raise Conflict("The question before this one is not answered yet.", advice="Stop it, or wait for its end.")
    source = queue.get_job(session, chat.spec["job"])
    turn = _make_turn(session, source, chat.spec["step"], question, device)
    turn.job_id = chat.key
    session.add(turn)
    session.flush()
    if chat.status in ENDED:
        start_again(session, chat, 0, spec={**chat.spec, "device": device}, priority=PRIORITY)
    return turn


def stop_answer(session: Session, chat: Job) -> None:
    """The answer in hand ends where it is; a question that waits is withdrawn. Raises: Conflict."""
    require_chat(chat)
    turn = find_open_turn(session, chat.key)
    if turn is None or chat.status in ENDED:
        raise Conflict("No answer is on its way.")
    if chat.status in (JobStatus.QUEUED, JobStatus.INTERRUPTED):
        close_turn(session, turn, CANCELLED)
        queue.request_cancel(session, chat)
        return
    turn.stop_requested = True
    session.add(turn)


def end_chat(session: Session, chat: Job) -> None:
    """Let the model go after the answer in hand. Raises: Conflict."""
    require_chat(chat)
    queue.request_cancel(session, chat, save=True)


def move_to_cpu(session: Session, chat: Job) -> None:
    """A chat that waits for the GPU is answered on the CPU instead. Raises: Conflict where it does not wait."""
    require_chat(chat)
    if chat.status != JobStatus.QUEUED:
        raise Conflict(f"The chat is {chat.status}; only one that waits can be moved.")
    chat.spec = {**chat.spec, "device": "cpu"}
    session.add(chat)
    session.flush()
    queue.announce(session, chat)


def after_session(session: Session, chat: Job) -> Job:
    """A chat's process has ended: a question that came too late for it starts another, unless the chat has failed.

    Where it made room for a job that waits, the question waits behind that one.
    """
    if chat.status not in ENDED or find_open_turn(session, chat.key) is None:
        return chat
    if chat.status != JobStatus.COMPLETED:
        close_open_turns(session, chat)
        return chat
    return start_again(session, chat, 0, priority=0 if chat.summary.get("ended") == "room" else PRIORITY)


def require_chat(chat: Job) -> None:
    """Raises: NotFound where the job is something else."""
    if not is_chat(chat):
        raise NotFound(f"Job {chat.id} is not a chat.")


def _make_turn(session: Session, source: Job, step: int | None, question: Question, device: str) -> ChatTurn:
    """Raises: InvalidInput with every fault at its field."""
    sides = sides_of(question.sides)
    more = _side_faults(session, source, step, question.sides)
    if device not in DEVICES:
        more.append(Fault("device", f"{device!r} is not one of {', '.join(DEVICES)}"))
    sampling = check_question(session, source, question.prompt, question.system, dict(question.sampling), more)
    return ChatTurn(
        job_id=0,
        prompt=question.prompt,
        system=question.system,
        sides=sides,
        sampling=sampling.model_dump(),
        asked_at=time.time(),
    )


def _side_faults(session: Session, source: Job, step: int | None, sides: Sequence[str]) -> list[Fault]:
    unknown = [side for side in sides if side not in set(Side)]
    if unknown or not sides:
        return [Fault("sides", f"must name some of {', '.join(Side)} (got {', '.join(unknown) or 'none'})")]
    if Side.TUNED in sides and find_trained(session, source, step) is None:
        what = "trained nothing yet" if step is None else f"has no checkpoint of step {step}"
        return [Fault("sides", f"job {source.id} ({source.status}) {what}", "Ask the base model, or wait.")]
    return []
