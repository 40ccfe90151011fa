"""Conversations of several turns and kept prompts over the API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.jobs.models import Job
from app.core.paths import DataFolder
from tests.api.conftest import Shown

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "And now?"},
]


def _turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "x"} for role in roles]


def test_a_conversation_reaches_the_model_as_it_was_given(
    client: TestClient, make_job: Callable[..., Job], database: Database, folder: DataFolder
) -> None:
    from worker.payload import build_payload

    answer = client.post(f"/api/v1/jobs/{make_job().id}/generate", json={"messages": TALK, "base": True, "seed": 3})
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert (job["spec"]["messages"], job["spec"]["prompt"], job["spec"]["seed"]) == (TALK, "And now?", 3)
    with database.write() as session:
        payload = build_payload(session, folder, Path("/nowhere"), session.get_one(Job, job["id"]))
    assert payload["messages"] == TALK
    assert "And now?" in client.get(f"/jobs/{job['id']}").text


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "holds no turn"),
        (_turns("assistant"), "turn 1: is the assistant's, where one of the user is due"),
        (_turns("user", "user"), "turn 2: is the user's, where one of the assistant is due"),
        (_turns("system", "user", "system"), "turn 3: is the system's"),
        (_turns("user", "assistant"), "ends with an answer, so nothing is asked"),
        (_turns("system"), "asks nothing"),
        (_turns("user", "tool", "user"), "turn 2: role 'tool' is not one of"),
        ([{"role": "user", "content": " "}], "turn 1: has no text"),
        ([{"role": "user", "content": [1]}], "turn 1: has no text"),
        (["hello"], "turn 1: is not {role, content}"),
        ([{"role": "user"}], "turn 1: is not {role, content}"),
        (_turns("user", "assistant") * 101, "holds 202 turns"),
    ],
)
def test_what_is_no_conversation_is_refused_with_the_turn(
    client: TestClient, make_job: Callable[..., Job], refused: Shown, messages: list[Any], said: str
) -> None:
    answer = client.post(f"/api/v1/jobs/{make_job().id}/generate", json={"messages": messages, "base": True})
    error = refused(answer, 422)
    assert error["field"] == "messages"
    assert said in error["message"]


def test_a_prompt_or_a_system_prompt_beside_it_is_refused(
    client: TestClient, make_job: Callable[..., Job], refused: Shown
) -> None:
    body = {"messages": TALK, "prompt": "x", "system": "y", "base": True, "top_p": 2}
    answer = client.post(f"/api/v1/jobs/{make_job().id}/generate", json=body)
    assert "top_p" in refused(answer, 422)["message"]
    answer = client.post(f"/api/v1/jobs/{make_job().id}/generate", json={**body, "top_p": 1})
    assert {fault["field"] for fault in refused(answer, 422)["faults"]} == {"prompt", "system"}


def test_prompts_are_kept_listed_and_let_go(client: TestClient, refused: Shown) -> None:
    first = client.post("/api/v1/samples", json={"text": " Say hello. "})
    assert (first.status_code, first.json()["text"]) == (201, "Say hello.")
    assert client.post("/api/v1/samples", json={"text": "Say hello."}).json()["id"] == first.json()["id"]
    assert [sample["text"] for sample in client.get("/api/v1/samples").json()] == ["Say hello."]
    assert refused(client.post("/api/v1/samples", json={"text": "  "}), 422)["field"] == "text"
    assert client.delete(f"/api/v1/samples/{first.json()['id']}").status_code == 204
    refused(client.delete(f"/api/v1/samples/{first.json()['id']}"), 404)
