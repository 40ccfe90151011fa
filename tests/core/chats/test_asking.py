"""A chat is queued with its questions, each of which ends with an answer of every side or with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlmodel import Session, select

from app.core.artifacts.models import Artifact
from app.core.chats.asking import (
    Question,
    after_session,
    ask,
    end_chat,
    move_to_cpu,
    start_chat,
    stop_answer,
)
from app.core.chats.models import ChatTurn
from app.core.chats.turns import conversation, find_open_turn, list_turns, read_pieces, take_answer
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.events import log
from app.core.events.models import Event
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.spec import parse_spec
from app.core.jobs.status import JobStatus, Lane
from app.core.jobs.submit import submit_training

RUNNING = (JobStatus.STARTING, JobStatus.RUNNING)
BOTH = ("tuned", "base")


@pytest.fixture
def trained(session: Session, make_job: Callable[..., Job]) -> Job:
    """A completed training with an adapter and a checkpoint of step 4."""
    job = _advance(session, make_job("mine"), *RUNNING, JobStatus.COMPLETED)
    for kind, path, step in (("checkpoint", "checkpoints/step-4", 4), ("adapter", "adapter", 9)):
        session.add(Artifact(job_id=job.key, kind=kind, path=path, step=step, bytes=1, created_at=0.0))
    session.flush()
    return job


@pytest.fixture
def chat(session: Session, trained: Job) -> Job:
    return start_chat(session, trained, Question("Why?", BOTH))


def _advance(session: Session, job: Job, *statuses: JobStatus, **fields: Any) -> Job:
    for status in statuses:
        job = queue.advance(session, queue.get_job(session, job.key), status, **fields)
    return job


def _queue_training(session: Session) -> Job:
    return submit_training(session, parse_spec({"base_model": "tiny", "dataset": "small"}))


def _answer(session: Session, chat: Job, turn: ChatTurn, side: str, text: str = "So.") -> None:
    data = {"turn": turn.id, "side": side, "text": text, "tokens": 2, "stop_reason": "eos", "seconds": 0.5}
    take_answer(session, chat, data, 5.0)


def _fields(refused: pytest.ExceptionInfo[InvalidInput]) -> list[str]:
    return [fault.field for fault in refused.value.faults]


def _kinds(session: Session, chat: Job) -> list[str]:
    return list(session.exec(select(Event.kind).where(Event.job_id == chat.id).order_by(Event.id)))


def test_chat_waits_before_trainings_with_its_question(session: Session, trained: Job, chat: Job) -> None:
    _queue_training(session)
    assert chat.spec == {"chat": True, "job": trained.id, "step": None, "device": "auto"}
    (turn,) = list_turns(session, chat)
    assert (turn.prompt, turn.sides, turn.answers, turn.ended_at) == ("Why?", ["base", "tuned"], {}, None)
    assert turn.sampling == {"max_new_tokens": 128, "temperature": 0.0, "top_p": 1.0, "seed": None}
    claimed, _ = queue.claim_next(session, Lane.GPU) or pytest.fail("nothing was claimed")
    assert claimed.id == chat.id


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({"prompt": " "}, ["prompt"]),
        ({"prompt": "x" * 200_001, "system": "x" * 200_001}, ["prompt", "system"]),
        ({"sides": []}, ["sides"]),
        ({"sides": ["other"]}, ["sides"]),
        ({"sampling": {"max_new_tokens": 5000, "temperature": -1, "top_p": 0, "seed": 2**32}},
         ["max_new_tokens", "temperature", "top_p", "seed"]),
        ({"prompt": "", "sides": [], "sampling": {"heat": 1}}, ["prompt", "sides", "heat"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_every_field(
    session: Session, trained: Job, values: dict[str, Any], fields: list[str]
) -> None:
    before = session.exec(select(Job.id)).all()
    with pytest.raises(InvalidInput) as refused:
        start_chat(session, trained, Question(**{"prompt": "Why?", **values}))
    assert _fields(refused) == fields
    assert session.exec(select(Job.id)).all() == before


def test_device_and_checkpoint_must_be_there(session: Session, trained: Job) -> None:
    with pytest.raises(InvalidInput) as refused:
        start_chat(session, trained, Question("Why?"), device="tpu", step=5)
    assert _fields(refused) == ["sides", "device"]
    assert start_chat(session, trained, Question("Why?"), step=4).spec["step"] == 4


def test_job_without_a_result_answers_as_its_base_alone(session: Session, make_job: Callable[..., Job]) -> None:
    job = make_job()
    with pytest.raises(InvalidInput, match="trained nothing yet") as refused:
        start_chat(session, job, Question("Why?", BOTH))
    assert _fields(refused) == ["sides"]
    chat = start_chat(session, job, Question("Why?", ("base",)))
    with pytest.raises(Conflict, match="is not a training job"):
        start_chat(session, chat, Question("Why?"))
    with pytest.raises(NotFound, match="is not a chat"):
        ask(session, job, Question("Why?"))


def test_turn_ends_with_the_answer_of_its_last_side(session: Session, chat: Job) -> None:
    (turn,) = list_turns(session, chat)
    _answer(session, chat, turn, "base")
    assert turn.ended_at is None
    with pytest.raises(Conflict, match="is not answered yet"):
        ask(session, chat, Question("And?"))
    _answer(session, chat, turn, "tuned")
    assert (turn.ended_at, find_open_turn(session, chat.key)) == (5.0, None)
    of_chat = select(Event).where(Event.job_id == chat.id, Event.kind == "answer").order_by(Event.id)
    told = [(event.data["side"], event.data["done"]) for event in session.exec(of_chat)]
    assert told == [("base", False), ("tuned", True)]
    _answer(session, chat, turn, "tuned", "Late.")
    assert turn.answers["tuned"]["text"] == "So."


def test_pieces_are_read_while_the_answer_comes_and_gone_behind_it(session: Session, chat: Job) -> None:
    (turn,) = list_turns(session, chat)

    def tell(side: str, at: int, text: str) -> None:
        data = {"turn": turn.id, "side": side, "at": at, "text": text, "tokens": 1}
        log.append(session, EventKind.PIECE, data, job_id=chat.id)
        session.flush()

    for side, at, text in (("base", 0, "It is"), ("base", 5, " sx"), ("base", 7, "o."), ("tuned", 0, "Ah")):
        tell(side, at, text)
    assert read_pieces(session, turn) == {"base": "It is so.", "tuned": "Ah"}
    tell("tuned", 0, "Oh")  # another attempt begins anew
    _answer(session, chat, turn, "base")
    assert read_pieces(session, turn) == {"tuned": "Oh"}
    _answer(session, chat, turn, "tuned")
    assert "piece" not in _kinds(session, chat)


def test_each_side_sees_the_questions_that_it_answered(session: Session, chat: Job) -> None:
    (first,) = list_turns(session, chat)
    _answer(session, chat, first, "base", "B1")
    _answer(session, chat, first, "tuned", "T1")
    second = ask(session, chat, Question("And?", ("tuned",)))
    _answer(session, chat, second, "tuned", "T2")
    third = ask(session, chat, Question("Then?", BOTH))
    turns = list_turns(session, chat)
    said = [[turn["content"] for turn in conversation(turns, third, side)] for side in ("base", "tuned")]
    assert said == [["Why?", "B1", "Then?"], ["Why?", "T1", "And?", "T2", "Then?"]]


def test_ended_chat_is_queued_again_with_the_next_question(session: Session, chat: Job) -> None:
    (first,) = list_turns(session, chat)
    for side in BOTH:
        _answer(session, chat, first, side)
    _advance(session, chat, *RUNNING, JobStatus.COMPLETED, summary={"turns": 1, "ended": "idle"})
    ask(session, queue.get_job(session, chat.key), Question("And?"), device="cpu")
    again = queue.get_job(session, chat.key)
    assert (again.status, again.spec["device"], again.priority, again.finished_at) == ("queued", "cpu", 20, None)
    assert queue.claim_next(session, Lane.GPU) is None
    claimed, _ = queue.claim_next(session, Lane.CHAT) or pytest.fail("nothing was claimed")
    assert claimed.id == chat.id


def test_question_that_came_too_late_starts_another_process(session: Session, chat: Job) -> None:
    chat = _advance(session, chat, *RUNNING, JobStatus.COMPLETED, summary={"turns": 0, "ended": "idle"})
    assert (after_session(session, chat).status, chat.priority) == (JobStatus.QUEUED, 20)


def test_chat_that_made_room_waits_behind_who_waited(session: Session, chat: Job) -> None:
    waits = _queue_training(session)
    chat = _advance(session, chat, *RUNNING, JobStatus.COMPLETED, summary={"turns": 0, "ended": "room"})
    after_session(session, chat)
    claimed, _ = queue.claim_next(session, Lane.GPU) or pytest.fail("nothing was claimed")
    assert claimed.id == waits.id


def test_chat_that_failed_says_so_in_the_question_that_it_leaves(session: Session, chat: Job) -> None:
    error = {"kind": "model_load", "message": "It is gone.", "advice": "Import it.", "log_tail": ["x"]}
    chat = _advance(session, chat, *RUNNING, JobStatus.FAILED, error=error)
    assert after_session(session, chat).status == JobStatus.FAILED
    (turn,) = list_turns(session, chat)
    said = {"kind": "model_load", "message": "It is gone.", "advice": "Import it."}
    assert turn.answers == {"base": {"error": said}, "tuned": {"error": said}}
    assert turn.ended_at is not None


def test_stop_withdraws_a_question_that_waits(session: Session, chat: Job) -> None:
    stop_answer(session, chat)
    assert queue.get_job(session, chat.key).status == JobStatus.CANCELLED
    (turn,) = list_turns(session, chat)
    assert [answer["stop_reason"] for answer in turn.answers.values()] == ["cancelled", "cancelled"]
    with pytest.raises(Conflict, match="No answer is on its way"):
        stop_answer(session, queue.get_job(session, chat.key))


def test_stop_and_end_are_asked_of_a_chat_that_runs(session: Session, chat: Job) -> None:
    chat = _advance(session, chat, *RUNNING)
    stop_answer(session, chat)
    end_chat(session, chat)
    assert list_turns(session, chat)[0].stop_requested
    assert queue.get_job(session, chat.key).save_requested
    with pytest.raises(Conflict, match="only one that waits"):
        move_to_cpu(session, chat)


def test_cancelled_question_is_not_asked_again_with_the_next(session: Session, chat: Job) -> None:
    queue.request_cancel(session, chat)
    ask(session, queue.get_job(session, chat.key), Question("And?"))
    first, second = list_turns(session, chat)
    assert (first.answers["tuned"]["stop_reason"], second.ended_at) == ("cancelled", None)
    assert find_open_turn(session, chat.key) == second


def test_chat_that_waits_can_go_to_the_cpu(session: Session, chat: Job) -> None:
    move_to_cpu(session, chat)
    assert queue.claim_next(session, Lane.GPU) is None
    assert queue.claim_next(session, Lane.CHAT) is not None
