"""Pages of the playground over HTTP: questions, what the page says of the GPU, and prompts kept as samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session, col, select

from app.core.artifacts.models import Artifact
from app.core.boot import boot_id, uptime_seconds
from app.core.chats.models import ChatTurn, SamplePrompt
from app.core.chats.turns import list_turns, take_answer
from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.queue_state import pause_queue
from app.core.jobs.status import JobStatus
from app.core.models.models import BaseModel

MakeJob = Callable[..., Job]
EVIL = "</p><img src=x onerror=alert(1)>"
RUNNING = (JobStatus.STARTING, JobStatus.RUNNING)


def advance(database: Database, job: Job, *statuses: JobStatus, **fields: Any) -> Job:
    with database.write() as session:
        for status in statuses:
            job = queue.advance(session, queue.get_job(session, job.key), status, **fields)
    return job


@pytest.fixture
def trained(database: Database, make_job: MakeJob) -> Job:
    job = advance(database, make_job("mine"), *RUNNING, JobStatus.COMPLETED)
    with database.write() as session:
        for kind, path, step in (("checkpoint", "checkpoints/step-4", 4), ("adapter", "adapter", 9)):
            session.add(Artifact(job_id=job.key, kind=kind, path=path, step=step, bytes=1, created_at=0.0))
    return job


@pytest.fixture
def worker(database: Database) -> Callable[..., None]:
    """A worker that lives, with a GPU or without."""

    def say(*, gpu: bool = False, free: int = 8 * 2**30) -> None:
        host = {"ram_total_bytes": 16 * 2**30, "ram_used_bytes": 16 * 2**30 - free}
        reading = {"available": gpu, "reason": None, "devices": [{"index": 0}] if gpu else [], "host": host}
        alive: dict[str, Any] = {
            "pid": 1,
            "pid_started_at": 0.0,
            "boot_id": boot_id(),
            "version": "0",
            "started_at": 0.0,
        }
        with database.write() as session:
            session.merge(WorkerState(**alive, heartbeat_at=uptime_seconds(), reading=reading))

    return say


@pytest.fixture
def ask(client: TestClient, trained: Job) -> Callable[..., Any]:
    """Start a chat, or ask on in one."""

    def ask(chat: int | None = None, **typed: Any) -> Any:
        values = {"job": trained.id, "prompt": "Why?", "sides": "both", **typed}
        path = "/playground" if chat is None else f"/playground/{chat}"
        return client.post(path, data=values, follow_redirects=False)

    return ask


def answer(database: Database, chat_id: int, **sides: Any) -> None:
    with database.write() as session:
        chat = queue.get_job(session, chat_id)
        turn = list_turns(session, chat)[-1]
        for side, text in sides.items():
            usual = {"text": text, "tokens": 4, "stop_reason": "eos", "seconds": 2.0}
            told = {"turn": turn.id, "side": side, **(usual if isinstance(text, str) else text)}
            take_answer(session, chat, told, 5.0)


def turns_of(session: Session) -> list[ChatTurn]:
    return list(session.exec(select(ChatTurn).order_by(col(ChatTurn.id))))


def test_question_starts_a_chat_and_leads_to_it(client: TestClient, database: Database, ask: Any, trained: Job) -> None:
    response = ask(temperature="0.5", top_p="0.8", max_new_tokens="9", seed="", system="Be brief.", device="cpu")
    assert (response.status_code, response.headers["location"]) == (303, "/playground/2")
    with database.read() as session:
        chat, (turn,) = queue.get_job(session, 2), turns_of(session)
    assert chat.spec == {"chat": True, "job": trained.id, "step": None, "device": "cpu"}
    assert turn.sampling == {"temperature": 0.5, "top_p": 0.8, "max_new_tokens": 9, "seed": None}
    assert (turn.prompt, turn.sides, turn.system) == ("Why?", ["base", "tuned"], "Be brief.")
    assert ask(step="4", sides="tuned").status_code == 303


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt", " ", "is empty"),
        ("prompt", "x" * 200_001, "has 200,001 characters"),
        ("sides", "all", "must name some of base, tuned"),
        ("step", "5", "has no checkpoint of step 5"),
        ("temperature", "hot", "valid number"),
        ("temperature", "nan", "finite"),
        ("top_p", "0", "greater than 0"),
        ("max_new_tokens", "5000", "less than or equal to 4096"),
        ("seed", "-1", "greater than or equal to 0"),
        ("device", "tpu", "is not one of auto, cpu"),
    ],
)
def test_bad_value_gets_422_beside_its_field_and_queues_nothing(
    client: TestClient, database: Database, ask: Any, field: str, value: str, message: str
) -> None:
    response = ask(**{"prompt": "Keep this", "system": "And this", field: value})
    assert response.status_code == 422
    assert message in response.text
    assert 'class="field-errors"' in response.text
    assert "And this" in response.text
    with database.read() as session:
        assert turns_of(session) == []


def test_max_tokens_beyond_the_model_are_refused(client: TestClient, database: Database, ask: Any) -> None:
    with database.write() as session:
        session.exec(select(BaseModel)).one().max_length = 256
    response = ask(max_new_tokens="256")
    assert response.status_code == 422
    assert "the model takes 256 tokens in all" in response.text
    assert 'value="128"' in client.get("/playground").text, "what the form begins with fits the model"


def test_conversation_shows_both_sides_and_how_they_ended(client: TestClient, database: Database, ask: Any) -> None:
    ask(max_new_tokens="4")
    page = client.get("/playground/2").text
    assert 'data-answer="1-base"' in page
    assert "Keep as sample" not in page
    cut = {"text": f"It is {EVIL}", "tokens": 4, "stop_reason": "length", "seconds": 2.0}
    answer(database, 2, base="So.", tuned=cut)
    page = client.get("/playground/2").text
    assert "data-answer" not in page
    assert "ended by itself" in page
    assert "cut at the limit of tokens" in page
    assert "4 tokens, 2 a second" in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img" not in page


def test_answer_on_its_way_is_shown_as_far_as_it_has_come(client: TestClient, database: Database, ask: Any) -> None:
    ask()
    with database.write() as session:
        for at, text in ((0, "It is"), (5, " so")):
            data = {"turn": 1, "side": "base", "at": at, "text": text, "tokens": 1}
            log.append(session, EventKind.PIECE, data, job_id=2)
    page = client.get("/playground/2").text
    assert '<p class="answer" data-answer="1-base">It is so</p>' in page
    assert 'aria-busy="true"' in page
    assert "Stop</button>" in page


def test_question_that_cannot_be_answered_says_why_at_its_field(
    client: TestClient, database: Database, ask: Any
) -> None:
    ask(sides="tuned")
    error = {"kind": "invalid_input", "field": "prompt", "message": "has 300 tokens", "advice": None}
    answer(database, 2, tuned={"error": error})
    assert "✕ prompt has 300 tokens" in client.get("/playground/2").text


def test_next_question_goes_on_in_the_same_chat(client: TestClient, database: Database, ask: Any) -> None:
    ask(temperature="0.3", system="Be brief.")
    second = ask(2, prompt="And?")
    assert second.status_code == 422
    assert "is not answered yet" in second.text
    answer(database, 2, base="So.", tuned="Aye.")
    page = client.get("/playground/2").text
    assert 'value="0.3"' in page, "the form goes on as the last question was asked"
    assert ">Be brief.</textarea>" in page
    assert ask(2, prompt="And?").headers["location"] == "/playground/2"
    region = client.post("/playground/2/stop", headers={"HX-Request": "true"})
    assert region.status_code == 200
    assert region.text.lstrip().startswith('<div id="playground"')
    with database.read() as session:
        assert [turn.ended_at is not None for turn in turns_of(session)] == [True, True]


@pytest.mark.parametrize("path", ["/playground/1", "/playground/99", "/playground?job=99", "/playground/state?chat=1"])
def test_what_is_no_chat_is_not_found(client: TestClient, trained: Job, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(("gpu", "now"), [(True, "Answer on the CPU now"), (False, "Answer now, beside it")])
def test_page_says_what_trains_and_offers_the_cpu_or_the_queue(
    client: TestClient, database: Database, ask: Any, make_job: MakeJob, worker: Any, gpu: bool, now: str
) -> None:
    worker(gpu=gpu)
    assert now not in client.get("/playground").text
    training = advance(database, make_job("busy"), *RUNNING, step=3, max_steps=10, eta_seconds=60.0)
    page = client.get("/playground").text
    assert f"Job #{training.id}</a> (train) has {'the GPU' if gpu else 'the processor'} now: step 3 of 10" in page
    assert now in page
    assert "Wait in the queue" in page
    ask()
    waiting = client.get("/playground/3").text
    assert "Your question waits, position 1 in the queue" in waiting
    assert client.post("/playground/3/cpu").status_code == 200
    with database.read() as session:
        assert queue.get_job(session, 3).spec["device"] == "cpu"
    assert "Your question waits" not in client.get("/playground/3").text


def test_cpu_is_not_offered_where_the_model_does_not_fit_beside_what_runs(
    client: TestClient, database: Database, trained: Job, make_job: MakeJob, worker: Any
) -> None:
    worker(gpu=True, free=2**30)
    with database.write() as session:
        session.exec(select(BaseModel)).one().parameters = 10**9
    advance(database, make_job("busy"), *RUNNING)
    page = client.get("/playground").text
    assert 'value="cpu" form="chat-form" disabled' in page
    assert "takes about 4.5 GiB of memory, 1.0 GiB are free" in page


def test_idle_chat_of_somebody_else_is_in_nobodys_way(
    client: TestClient, database: Database, ask: Any, worker: Any
) -> None:
    worker(gpu=True)
    ask()
    with database.read() as session:
        chat = queue.get_job(session, 2)
    advance(database, chat, *RUNNING, phase="generate")
    assert "has the GPU now" in client.get("/playground").text
    with database.write() as session:
        queue.get_job(session, 2).phase = "idle"
    assert "has the GPU now" not in client.get("/playground").text
    assert "The model stays loaded on the GPU for five minutes" in client.get("/playground/2").text
    assert client.post("/playground/2/end").status_code == 200
    with database.read() as session:
        assert queue.get_job(session, 2).save_requested


def test_state_keeps_the_choice_of_the_device(
    client: TestClient, database: Database, trained: Job, worker: Any
) -> None:
    worker(gpu=True)
    with database.write() as session:
        pause_queue(session)
    region = client.get(f"/playground/state?job={trained.id}&device=cpu").text
    assert 'value="cpu" form="chat-form" checked' in region
    assert 'The <a href="/queue">queue</a> is paused.' in region
    assert 'value="auto" form="chat-form" checked' in client.get(f"/playground/state?job={trained.id}").text


def test_page_without_a_worker_or_a_training_says_so(client: TestClient, trained: Job) -> None:
    assert "The worker does not run" in client.get("/playground").text


def test_playground_before_any_training_leads_to_one(client: TestClient, make_job: MakeJob) -> None:
    assert "Nothing has been trained here yet" in client.get("/playground").text
    page = client.get(f"/playground?job={make_job().id}").text
    assert "only its base model answers" in page
    assert 'value="both" form="chat-form" disabled' in page


def test_prompt_is_kept_as_a_sample_once_and_removed(client: TestClient, database: Database, ask: Any) -> None:
    ask(prompt=f"Why {EVIL}?")
    answer(database, 2, base="So.", tuned="Aye.")
    for _ in range(2):
        assert client.post("/playground/2/samples", data={"turn": 1}).status_code == 200
    page = client.get("/playground/2").text
    assert "Samples (1)" in page
    assert page.count("Why &lt;/p&gt;&lt;img src=x onerror=alert(1)&gt;?") >= 2
    assert client.post("/playground/2/samples", data={"turn": 9}).status_code == 404
    removed = client.post("/playground/samples/1/drop", data={"chat": 2}, follow_redirects=False)
    assert removed.headers["location"] == "/playground/2"
    with database.read() as session:
        assert session.exec(select(SamplePrompt)).all() == []
    assert client.post("/playground/samples/1/drop").status_code == 404


def test_prompt_that_is_too_long_for_a_sample_is_refused_where_samples_stand(
    client: TestClient, database: Database, ask: Any
) -> None:
    ask(prompt="x" * 2001)
    answer(database, 2, base="So.", tuned="Aye.")
    refused = client.post("/playground/2/samples", data={"turn": 1})
    assert refused.status_code == 422
    assert "the question has 2,001 characters; a sample has at most 2,000" in refused.text


def test_job_page_of_a_chat_leads_to_it(client: TestClient, ask: Any) -> None:
    ask()
    assert 'href="/playground/2">Open the chat</a>' in client.get("/jobs/2").text
