"""`loradeck datasets preview` with a model, against a real server; the worker's part is played here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.database import Database
from app.core.datasets.xray import XRAY_FILE
from app.core.jobs import queue
from app.core.jobs.status import JobStatus
from tests.cli.conftest import Command
from tests.live_server import Served

TOKENS = [
    {"id": 1, "text": "Hi", "trained": False, "special": False},
    {"id": 2, "text": "Yo", "trained": True, "special": False},
]
RUNS = [{"trained": False, "tokens": 1, "text": "Hi"}, {"trained": True, "tokens": 1, "text": "Yo\n"}]
SEQUENCE = {"name": None, "start": 0, "end": 2, "trained_tokens": 1, "total_tokens": 9, "kept": True, "runs": RUNS,
            "pack": None}  # fmt: skip
ROWS = [
    {"row": row, "tokens": TOKENS, "trained_tokens": 1, "total_tokens": 9, "left_out_tokens": 0,
     "flags": ["bos", "cut"], "reason": None, "sequences": [SEQUENCE]}
    for row in (1, 2)
]  # fmt: skip
PREVIEW = ("datasets", "preview", "small", "--model", "tiny")


@pytest.fixture
def answered(server: Served, database: Database, spec: Path) -> None:
    """A worker has answered for the first rows of `small` under `tiny` with max_length 96."""
    body = {"model": "tiny", "max_length": 96, "wait_seconds": 0}
    url = f"{server.url}/api/v1/datasets/small/preview"
    answer: dict[str, Any] = httpx.post(url, json=body, headers=server.headers).raise_for_status().json()
    if "rows" in answer:
        return
    job_id = answer["job"]["id"]
    folder = server.home / "jobs" / str(job_id)
    folder.mkdir(parents=True)
    xray = {"first": 1, "last": 2, "total": 4, "rows": ROWS, "packing": None}
    (folder / XRAY_FILE).write_text(json.dumps(xray))
    with database.write() as session:
        job = queue.get_job(session, job_id)
        for status in (JobStatus.STARTING, JobStatus.RUNNING):
            job = queue.advance(session, job, status)
        summary = {"first": 1, "last": 2, "found": None, "searched_to": None}
        queue.advance(session, job, JobStatus.COMPLETED, summary=summary)


@pytest.mark.usefixtures("answered")
def test_tokens_as_json_and_as_lines(loradeck: Command) -> None:
    all_rows = loradeck(*PREVIEW, "--max-length", 96, "--json")
    assert (all_rows.code, all_rows.json["rows"]) == (0, ROWS)
    one = loradeck(*PREVIEW, "--max-length", 96, "--row", 2)
    assert one.out.splitlines() == [
        "row 2: 1 of 9 tokens are learned; begins with the BOS token; ⚠ cut at max_length",
        "  sequence:",
        "    given     1  'Hi'",
        "  learned     1  'Yo\\n'",
    ]


@pytest.mark.usefixtures("spec")
def test_a_worker_that_does_not_come_is_not_waited_for_without_end(loradeck: Command) -> None:
    waited = loradeck(*PREVIEW, "--max-length", 77, "--timeout", 0.1)
    assert waited.code == 1
    assert "is still queued" in waited.err
    assert "Is the worker running?" in waited.err


@pytest.mark.usefixtures("spec")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("datasets", "preview", "small", "--max-length", 96), "max_length: needs --model"),
        (("datasets", "preview", "small", "--suspicious"), "suspicious: needs --model"),
        (("datasets", "preview", "small", "--model", "nobody"), "There is no base model 'nobody'"),
        ((*PREVIEW, "--row", 9), "small has no row 9"),
        ((*PREVIEW, "--overlong-rows", "split"), "overlong_rows: only plain text"),
    ],
)
def test_what_cannot_be_shown_is_bad_input(arguments: tuple[Any, ...], words: str, loradeck: Command) -> None:
    refused = loradeck(*arguments)
    assert (refused.code, refused.out) == (2, "")
    assert words in refused.err
