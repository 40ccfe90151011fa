"""A chat's process gets each question once, answers while others train, and makes room for who waits."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from app.core.artifacts.models import Artifact
from app.core.chats.asking import Question, ask, end_chat, start_chat, stop_answer
from app.core.chats.turns import list_turns, read_pieces
from app.core.database import Database
from app.core.events.models import Event
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.jobs.status import JobStatus, Lane
from app.core.settings import Settings
from tests.worker.conftest import ScriptedWorker
from worker.inbox import FILE, InboxReader, InboxWriter

MakeJob = Callable[..., Job]


@pytest.fixture
def trained(database: Database, make_job: MakeJob) -> Job:
    job = make_job("mine")
    with database.write() as session:
        for status in (JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED):
            job = queue.advance(session, get_job(session, job.key), status)
        session.add(Artifact(job_id=job.key, kind="adapter", path="adapter", bytes=1, created_at=0.0))
    return job


@pytest.fixture
def start(scripted: ScriptedWorker, database: Database, trained: Job) -> Callable[..., Job]:
    scripted.follow("chat")

    def start(prompt: str = "Why?", sides: Sequence[str] = ("tuned",), **where: Any) -> Job:
        with database.write() as session:
            return start_chat(session, trained, Question(prompt, sides), **where)

    return start


def _said(scripted: ScriptedWorker, chat: Job) -> list[dict[str, Any]]:
    with scripted.database.read() as session:
        return [
            {side: answer.get("text") for side, answer in turn.answers.items()} for turn in list_turns(session, chat)
        ]


def _wait_for_answers(scripted: ScriptedWorker, chat: Job, count: int) -> None:
    def answered() -> bool:
        with scripted.database.read() as session:
            return sum(turn.ended_at is not None for turn in list_turns(session, chat)) == count

    scripted.run_until(answered)


def _wait_for_piece(scripted: ScriptedWorker, chat: Job) -> None:
    def told() -> bool:
        with scripted.database.read() as session:
            return read_pieces(session, list_turns(session, chat)[-1]).get("tuned") == "Aye"

    scripted.run_until(told)


def _act(database: Database, action: Callable[..., Any], chat: Job, *values: Any, **more: Any) -> None:
    with database.write() as session:
        action(session, get_job(session, chat.key), *values, **more)


def test_one_process_answers_all_questions(scripted: ScriptedWorker, database: Database, start: Any) -> None:
    chat = start("Why?", ("base", "tuned"))
    _wait_for_answers(scripted, chat, 1)
    _act(database, ask, chat, Question("And?"))
    _wait_for_answers(scripted, chat, 2)
    assert _said(scripted, chat) == [{"base": "1: 1 Why?", "tuned": "1: 1 Why?"}, {"tuned": "1: 3 And?"}]
    assert (scripted.job(chat).status, scripted.job(chat).phase) == (JobStatus.RUNNING, "idle")
    _act(database, end_chat, chat)
    ended = scripted.run_to_end(chat)
    assert (ended.status, ended.summary) == (JobStatus.COMPLETED, {"turns": 1, "ended": "asked"})


def test_ended_chat_goes_on_in_another_process(scripted: ScriptedWorker, database: Database, start: Any) -> None:
    chat = start()
    _wait_for_answers(scripted, chat, 1)
    _act(database, end_chat, chat)
    scripted.run_to_end(chat)
    _act(database, ask, chat, Question("And?"))
    _wait_for_answers(scripted, chat, 2)
    assert _said(scripted, chat)[1] == {"tuned": "2: 3 And?"}


def test_stop_reaches_the_answer_in_hand(scripted: ScriptedWorker, database: Database, start: Any) -> None:
    chat = start("slow one")
    _wait_for_piece(scripted, chat)
    _act(database, stop_answer, chat)
    _wait_for_answers(scripted, chat, 1)
    with database.read() as session:
        (turn,) = list_turns(session, chat)
        kinds = session.exec(select(Event.kind).where(Event.job_id == chat.id)).all()
    assert turn.answers["tuned"]["stop_reason"] == "cancelled"
    assert "piece" not in kinds
    assert scripted.job(chat).status == JobStatus.RUNNING


def test_chat_makes_room_for_a_training_that_waits(scripted: ScriptedWorker, start: Any, make_job: MakeJob) -> None:
    chat = start()
    _wait_for_answers(scripted, chat, 1)
    training = scripted.run_to_end(make_job("waits"))
    assert training.status == JobStatus.COMPLETED
    ended = scripted.job(chat)
    assert (ended.status, ended.summary["ended"]) == (JobStatus.COMPLETED, "room")


def test_answer_in_hand_is_finished_before_room_is_made(
    scripted: ScriptedWorker, database: Database, start: Any, make_job: MakeJob
) -> None:
    chat = start("slow one")
    _wait_for_piece(scripted, chat)
    training = make_job("waits")
    inbox = InboxReader(scripted.folder.attempt(chat.key, 1) / FILE)
    scripted.run_until(lambda: any("end" in request for request in inbox.poll()))
    assert scripted.job(training).status == JobStatus.QUEUED
    _act(database, stop_answer, chat)
    scripted.run_to_end(training)
    _wait_for_answers(scripted, chat, 1)


def test_chat_on_the_cpu_answers_beside_a_training(
    scripted: ScriptedWorker, database: Database, start: Any, make_job: MakeJob
) -> None:
    scripted.follow("wait")
    training = make_job("trains")
    scripted.run_to_train(training)
    scripted.follow("chat")
    waiting, aside = start(), start(device="cpu")
    _wait_for_answers(scripted, aside, 1)
    assert scripted.job(training).status == JobStatus.RUNNING
    assert scripted.job(waiting).status == JobStatus.QUEUED
    assert not _said(scripted, waiting)[0]


def test_chat_that_waits_idle_makes_room_for_another(scripted: ScriptedWorker, start: Any) -> None:
    first = start()
    _wait_for_answers(scripted, first, 1)
    second = start("Where?")
    _wait_for_answers(scripted, second, 1)
    assert scripted.job(first).summary["ended"] == "room"


def test_failed_chat_says_so_in_its_question(scripted: ScriptedWorker, database: Database, start: Any) -> None:
    chat = start()
    scripted.follow("fail")
    scripted.run_to_end(chat)
    with database.read() as session:
        (turn,) = list_turns(session, chat)
    assert turn.answers["tuned"]["error"]["message"] == "It did not work."
    assert turn.ended_at is not None


def test_question_outlives_a_worker_that_stops(
    scripted: ScriptedWorker, settings: Settings, database: Database, start: Any
) -> None:
    chat = start("slow one")
    _wait_for_piece(scripted, chat)
    scripted.worker.stop()
    scripted.worker.run()
    assert scripted.job(chat).status == JobStatus.QUEUED
    following = ScriptedWorker(settings, database)
    following.worker.start()
    following.run_until(lambda: following.job(chat).status == JobStatus.RUNNING)
    _act(database, stop_answer, chat)
    _wait_for_answers(following, chat, 1)
    assert _said(following, chat) == [{"tuned": "2: 1 slow one"}]
    following.worker.stop()
    following.worker.run()


def test_adopted_chat_is_not_asked_twice(
    scripted: ScriptedWorker, settings: Settings, database: Database, start: Any
) -> None:
    chat = start("slow one")
    _wait_for_piece(scripted, chat)
    orphan = scripted.take_over()  # as a worker that was killed leaves it
    following = ScriptedWorker(settings, database)
    following.worker.start()
    _act(database, stop_answer, chat)
    _wait_for_answers(following, chat, 1)
    _act(database, ask, chat, Question("And?"))
    _wait_for_answers(following, chat, 2)
    assert _said(following, chat) == [{"tuned": "1: 1 slow one"}, {"tuned": "1: 3 And?"}]
    handed = InboxReader(scripted.folder.attempt(chat.key, 1) / FILE).poll()
    assert [next(iter(request)) for request in handed] == ["turn", "stop", "turn"]
    following.worker.stop()
    following.worker.run()
    assert orphan._process.wait(10), "this process is its parent, as the dead worker's would be init"


def test_request_is_read_once_it_is_whole(tmp_path: Path) -> None:
    writer, reader = InboxWriter(tmp_path / FILE), InboxReader(tmp_path / FILE)
    assert reader.poll() == []
    writer.put({"stop": 1})
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"stop"')
    assert reader.poll() == [{"stop": 1}]
    with (tmp_path / FILE).open("ab") as file:
        file.write(b": 2}\n")
    assert reader.poll() == [{"stop": 2}]
    assert InboxWriter(tmp_path / FILE).written == [{"stop": 1}, {"stop": 2}]


def test_request_that_a_full_disk_takes_half_of_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = InboxWriter(tmp_path / FILE)
    writer.put({"stop": 1})
    write = os.write
    monkeypatch.setattr("os.write", lambda descriptor, data: write(descriptor, data[:3]))
    with pytest.raises(OSError, match="No space left"):
        writer.put({"stop": 2})
    monkeypatch.undo()
    writer.put({"stop": 3})
    assert InboxReader(tmp_path / FILE).poll() == [{"stop": 1}, {"stop": 3}]


def test_lane_of_a_chat_follows_its_device(scripted: ScriptedWorker, start: Any) -> None:
    chat = start(device="cpu")
    _wait_for_answers(scripted, chat, 1)
    assert scripted.worker._supervisors[Lane.CHAT].job.id == chat.id
