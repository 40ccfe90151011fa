"""What was asked and answered in a chat: read for pages and for the model, written as the worker hears of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text
from sqlmodel import Session, col, select

from app.core.chats.models import ChatTurn, Side
from app.core.events import log
from app.core.events.models import Event
from app.core.events.types import EventKind
from app.core.jobs.models import Job
from app.core.jobs.status import ENDED, JobKind

logger = logging.getLogger(__name__)

CANCELLED = {"text": "", "tokens": 0, "stop_reason": "cancelled", "seconds": 0.0}
_DROP_PIECES = text("""
    DELETE FROM event WHERE job_id = :job_id AND kind = 'piece' AND json_extract(data, '$.turn') = :turn
    AND json_extract(data, '$.side') = :side
""")


def is_chat(job: Job) -> bool:
    """Whether the job is a chat; the others of its kind are one answer each."""
    return job.kind == JobKind.PLAYGROUND and bool(job.spec.get("chat"))


def list_turns(session: Session, job: Job) -> Sequence[ChatTurn]:
    """In the order in which they were asked."""
    return session.exec(select(ChatTurn).where(ChatTurn.job_id == job.id).order_by(col(ChatTurn.id))).all()


def find_open_turn(session: Session, job_id: int) -> ChatTurn | None:
    """The question that is not answered wholly."""
    unanswered = select(ChatTurn).where(ChatTurn.job_id == job_id, col(ChatTurn.ended_at).is_(None))
    return session.exec(unanswered.order_by(col(ChatTurn.id)).limit(1)).first()


def is_waited_for(job: Job, turn: ChatTurn) -> bool:
    """Whether an answer is still to come."""
    return turn.ended_at is None and job.status not in ENDED


def conversation(turns: Sequence[ChatTurn], turn: ChatTurn, side: str) -> list[dict[str, str]]:
    """What a side is to answer: the turn's question, behind those that this side has answered itself."""
    messages: list[dict[str, str]] = []
    for each in turns:
        answer = each.answers.get(side, {}).get("text")
        if each.key < turn.key and answer:
            messages += [{"role": "user", "content": each.prompt}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": turn.prompt}]


def read_pieces(session: Session, turn: ChatTurn) -> dict[str, str]:
    """What has been told so far of the answers that are not complete, by side."""
    of_job = select(Event).where(Event.job_id == turn.job_id, Event.kind == EventKind.PIECE.value)
    told = dict.fromkeys(turn.sides, "")
    for event in session.exec(of_job.order_by(col(Event.id))):
        if event.data["turn"] == turn.id:
            side = event.data["side"]
            told[side] = told[side][: event.data["at"]] + event.data["text"]
    return {side: text for side, text in told.items() if side not in turn.answers}


def take_answer(session: Session, job: Job, data: Mapping[str, Any], at: float) -> None:
    """Store a side's answer, {turn, side, …}, and tell of it; its pieces are of no use any more."""
    turn = session.get(ChatTurn, data["turn"])
    if turn is None or turn.job_id != job.id or turn.ended_at is not None:
        logger.warning("job %s told an answer to question %s, which waits for none", job.id, data["turn"])
        return
    answer = {name: value for name, value in data.items() if name not in ("turn", "side")}
    _end_side(session, turn, data["side"], answer, at)


def close_turn(session: Session, turn: ChatTurn, answer: Mapping[str, Any]) -> None:
    """Nothing more will be answered: the sides that have not answered get this."""
    for side in turn.sides:
        if side not in turn.answers:
            _end_side(session, turn, side, dict(answer), time.time())


def close_open_turns(session: Session, job: Job) -> None:
    """What a chat that has ended leaves unanswered says why."""
    while (turn := find_open_turn(session, job.key)) is not None:
        error = job.error and {name: job.error.get(name) for name in ("kind", "message", "advice")}
        close_turn(session, turn, {"error": error} if error else CANCELLED)


def _end_side(session: Session, turn: ChatTurn, side: str, answer: dict[str, Any], at: float) -> None:
    turn.answers = {**turn.answers, side: answer}
    done = all(each in turn.answers for each in turn.sides)
    turn.ended_at = at if done else None
    session.add(turn)
    session.flush()
    session.execute(_DROP_PIECES, {"job_id": turn.job_id, "turn": turn.id, "side": side})
    data = {"turn": turn.id, "side": side, "done": done, **_told(answer)}
    log.append(session, EventKind.ANSWER, data, job_id=turn.job_id, at=at)


def _told(answer: Mapping[str, Any]) -> dict[str, Any]:
    names = ("text", "tokens", "stop_reason", "seconds", "error")
    return {name: answer.get(name) for name in names}


def sides_of(values: Sequence[str]) -> list[str]:
    """Each side once, in the order in which they answer."""
    return [side.value for side in Side if side.value in values]
