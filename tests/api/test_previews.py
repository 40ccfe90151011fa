"""The X-ray over the API: asked for, waited for, read again, refused. The worker's part is played here."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.datasets.xray import XRAY_FILE
from app.core.jobs import queue
from app.core.jobs.listing import list_jobs
from app.core.jobs.status import JobKind, JobStatus
from app.core.paths import DataFolder
from tests.api.conftest import Shown

URL = "/api/v1/datasets/small/preview"
TOKENS = [{"id": 7, "text": "Hi", "trained": True, "special": False}]
ROWS = [
    {"row": row, "tokens": TOKENS, "trained_tokens": 1, "total_tokens": 1, "left_out_tokens": 0, "flags": ["cut"],
     "reason": None, "sequences": []}
    for row in (1, 2, 3, 4)
]  # fmt: skip
XRAY = {"first": 1, "last": 4, "total": 4, "rows": ROWS, "packing": None, "bos": None, "eos": None, "exact": True,
        "default_template": False}  # fmt: skip
Settle = Callable[..., None]


@pytest.fixture
def settle(database: Database, folder: DataFolder) -> Settle:
    """End the newest preview job as the worker does."""

    def settle(status: JobStatus = JobStatus.COMPLETED, **fields: Any) -> None:
        with database.write() as session:
            job = list_jobs(session, kinds=[JobKind.PREVIEW]).jobs[0]
            folder.job(job.key).mkdir(parents=True)
            (folder.job(job.key) / XRAY_FILE).write_text(json.dumps(XRAY))
            for to in (JobStatus.STARTING, JobStatus.RUNNING):
                job = queue.advance(session, job, to)
            queue.advance(session, job, status, **fields)

    return settle


def ask(client: TestClient, **body: Any) -> Any:
    return client.post(URL, json={"model": "tiny", "wait_seconds": 0, **body})


def test_who_asks_is_told_the_job_and_then_the_rows(client: TestClient, settle: Settle) -> None:
    first = ask(client)
    assert (first.status_code, first.json()["job"]["kind"]) == (202, "preview")
    assert client.get(URL, params={"model": "tiny", "wait_seconds": 0}).status_code == 202
    settle(summary={"first": 1, "last": 4, "found": None, "searched_to": None})
    for answer in (ask(client), client.get(URL, params={"model": "tiny"})):
        assert answer.status_code == 200
        assert (answer.json()["rows"], answer.json()["job_id"]) == (ROWS, first.json()["job"]["id"])
    some = ask(client, row=2, count=2).json()
    assert ([row["row"] for row in some["rows"]], some["first"], some["last"], some["total"]) == ([2, 3], 2, 3, 4)


def test_the_answer_is_waited_for(
    client: TestClient, settle: Settle, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            settle(summary={"first": 1, "last": 4, "found": None, "searched_to": None})

    monkeypatch.setattr("app.api.previews.asyncio.sleep", pause)
    assert ask(client, wait_seconds=20).json()["rows"] == ROWS
    assert len(pauses) == 2


def test_a_search_says_what_it_found(client: TestClient, settle: Settle) -> None:
    assert ask(client, find=True).status_code == 202
    settle(summary={"first": 1, "last": 4, "found": 1, "searched_to": 1})
    answer = ask(client, find=True, count=1).json()
    assert ([row["row"] for row in answer["rows"]], answer["found"], answer["searched_to"]) == ([1], 1, 1)


def test_what_failed_is_asked_for_anew(client: TestClient, settle: Settle) -> None:
    first = ask(client).json()["job"]["id"]
    settle(JobStatus.FAILED, error={"kind": "chat_template", "message": "It loops.", "advice": "Mend it."})
    assert ask(client).json()["job"]["id"] != first  # what was wrong may have been mended


def test_a_preview_that_fails_while_it_is_waited_for_is_422(
    client: TestClient, settle: Settle, refused: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"kind": "chat_template", "message": "The chat template of tiny loops.", "advice": "Mend it."}

    async def pause(_seconds: float) -> None:
        settle(JobStatus.FAILED, error=error)

    monkeypatch.setattr("app.api.previews.asyncio.sleep", pause)
    shown = refused(ask(client, wait_seconds=20), 422, "invalid_input")
    assert (shown["message"], shown["field"], shown["advice"]) == (
        "model: The chat template of tiny loops.", "model", "Mend it.",
    )  # fmt: skip


REFUSED: list[tuple[dict[str, Any], int, str | None]] = [
    ({"model": "nobody"}, 404, None),
    ({"row": 5}, 404, None),
    ({"row": 0}, 422, "row"),
    ({"count": 51}, 422, "count"),
    ({"max_length": 2}, 422, "max_length"),
    ({"task": "dpo"}, 422, "dataset"),
    ({"overlong_rows": "split"}, 422, "overlong_rows"),
    ({"unknown": 1}, 422, "unknown"),
]


def test_what_cannot_be_shown_is_refused_and_not_queued(client: TestClient, refused: Shown) -> None:
    for body, status, field in REFUSED:
        assert refused(ask(client, **body), status).get("field") == field
    assert client.get("/api/v1/jobs", params={"kind": "preview"}).json()["total"] == 0


def test_looking_queues_nothing(client: TestClient, refused: Shown) -> None:
    shown = refused(client.get(URL, params={"model": "tiny"}), 404)
    assert "by POST" in shown["advice"]
    assert client.get("/api/v1/jobs", params={"kind": "preview"}).json()["total"] == 0
