"""Everything that the playground shows, read in one snapshot, so that the stream can take over behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session, col, select

from app.core.artifacts.models import Artifact
from app.core.chats.asking import find_trained
from app.core.chats.models import ChatTurn, SamplePrompt
from app.core.chats.samples import list_samples
from app.core.chats.turns import is_chat, is_waited_for, list_turns, read_pieces
from app.core.errors import Fault
from app.core.events.log import latest_id
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.jobs.status import WITH_ADAPTER, JobKind
from app.core.models.models import BaseModel
from app.playground.asked import Asked, typed_before
from app.playground.state import ChatState, describe_state

_LISTED = 50


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """One side's answer: complete, on its way with what has come of it, or the reason why there is none."""

    side: str
    text: str
    live: bool
    answer: Mapping[str, Any]

    @property
    def error(self) -> Mapping[str, Any] | None:
        return self.answer.get("error")

    @property
    def tokens_per_second(self) -> float | None:
        seconds = self.answer.get("seconds")
        return self.answer["tokens"] / seconds if seconds and self.answer["tokens"] else None


@dataclass(frozen=True, slots=True)
class ShownTurn:
    turn: ChatTurn
    answers: Sequence[ShownAnswer]
    live: bool


@dataclass(frozen=True, slots=True)
class PlaygroundView:
    """`source` is the training whose model answers, None where nothing is trained yet."""

    source: Job | None
    step: int | None
    chat: Job | None
    model: BaseModel | None
    trained: Artifact | None
    turns: Sequence[ShownTurn]
    state: ChatState
    asked: Asked
    samples: Sequence[SamplePrompt]
    sources: Sequence[Job]
    chats: Sequence[Job]
    after: int
    faults: Sequence[Fault] = field(default_factory=tuple)

    @property
    def waits(self) -> bool:
        """Whether an answer is on its way."""
        return any(turn.live for turn in self.turns)

    @property
    def device(self) -> str:
        """Where the next question is answered, unless someone chooses otherwise."""
        return self.asked.device or (self.chat.spec["device"] if self.chat is not None else "auto")

    def errors(self, name: str) -> list[str]:
        """What is wrong with a field."""
        of_field = (fault for fault in self.faults if fault.field == name)
        return [" ".join(filter(None, (fault.message, fault.advice))) for fault in of_field]


def view_playground(
    session: Session,
    source: Job | None,
    step: int | None = None,
    chat: Job | None = None,
    typed: Mapping[str, str] | None = None,
    faults: Sequence[Fault] = (),
) -> PlaygroundView:
    """What the page shows of a chat, or of a training before there is one."""
    turns = list_turns(session, chat) if chat is not None else []
    model = session.get(BaseModel, source.base_model_id) if source is not None and source.base_model_id else None
    trained = find_trained(session, source, step) if source is not None else None
    return PlaygroundView(
        source=source,
        step=step,
        chat=chat,
        model=model,
        trained=trained,
        turns=[_show(session, chat, turn) for turn in turns if chat is not None],
        state=describe_state(session, chat, model),
        asked=Asked.of(typed) if typed is not None else typed_before(turns, model, tuned=trained is not None),
        samples=list_samples(session),
        sources=list_sources(session, source),
        chats=list_chats(session, source),
        after=latest_id(session),
        faults=faults,
    )


def view_chat(
    session: Session, chat: Job, typed: Mapping[str, str] | None = None, faults: Sequence[Fault] = ()
) -> PlaygroundView:
    """What the page of a chat shows."""
    return view_playground(session, get_job(session, chat.spec["job"]), chat.spec["step"], chat, typed, faults)


def list_sources(session: Session, chosen: Job | None = None) -> list[Job]:
    """Trainings, and adapters from elsewhere, that one can chat with, newest first; the chosen one in any case."""
    saved = select(Artifact.job_id).where(col(Artifact.kind).in_(("adapter", "model", "checkpoint")))
    trained = select(Job).where(col(Job.kind).in_(WITH_ADAPTER), col(Job.id).in_(saved))
    found = list(session.exec(trained.order_by(col(Job.id).desc()).limit(_LISTED)))
    return found if chosen is None or chosen in found else [chosen, *found]


def list_chats(session: Session, source: Job | None) -> list[Job]:
    """Chats with what a training made, newest first."""
    if source is None:
        return []
    asked = select(Job).where(Job.kind == JobKind.PLAYGROUND, Job.source_job_id == source.id)
    return [job for job in session.exec(asked.order_by(col(Job.id).desc()).limit(_LISTED)) if is_chat(job)]


def _show(session: Session, chat: Job, turn: ChatTurn) -> ShownTurn:
    live = is_waited_for(chat, turn)
    told = read_pieces(session, turn) if live else {}
    answers = [_show_answer(turn, side, told, live=live and side not in turn.answers) for side in turn.sides]
    return ShownTurn(turn, answers, live)


def _show_answer(turn: ChatTurn, side: str, told: Mapping[str, str], *, live: bool) -> ShownAnswer:
    answer = turn.answers.get(side) or {}
    return ShownAnswer(side, answer.get("text") or told.get(side, ""), live, answer)
