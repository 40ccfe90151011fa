"""The doctor's panel: asked for, waited for, read, cancelled. The worker's part is played here."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.listing import list_jobs
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind, JobStatus
from app.datasets.doctor_view import BASE, TOP, chart_of

HTMX = {"HX-Request": "true"}
URL = "/datasets/1/check"
HOSTILE = "<img src=x onerror=alert(1)>"
TOKENS = {
    "model": "tiny", "max_length": 64, "task": "sft", "rows": 1_234, "p50": 30, "p95": 70, "max": 99, "total": 40_000,
    "truncated": 200, "answer_lost": 3, "rewritten": 1, "refused": 0, "default_template": True,
    "histogram": {"width": 10, "counts": [0, 0, 900, 134, 0, 0, 200], "over": 5},
    "choices": [
        {"overlong_rows": "truncate", "rows": 1_231, "trained_tokens": 2_000},
        {"overlong_rows": "drop", "rows": 1_034, "trained_tokens": 1_000},
    ],
}  # fmt: skip
SPLIT = {"rows": 62, "eval_fraction": 0.05, "eval_max_rows": 512, "reason": "the usual share", "twins": 4}
Act = Callable[..., Job]


def report(**fields: Any) -> dict[str, Any]:
    return {"format": "alpaca", "kind": "messages", "recognised_by": ["output"], "rows": 1_234, "unusable": 0,
            "problems": [], "counts": {}, "duplicates": 0, "duplicate_rows": [], "tokens": None, "split": SPLIT,
            **fields}  # fmt: skip


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.fixture
def act(database: Database) -> Act:
    """Move the newest check as the worker does."""

    def act(*statuses: JobStatus, **fields: Any) -> Job:
        with database.write() as session:
            job = list_jobs(session, kinds=[JobKind.CHECK]).jobs[0]
            for status in statuses:
                job = queue.advance(session, job, status, **(fields if status == statuses[-1] else {}))
            return job

    return act


@pytest.fixture
def finish(act: Act) -> Act:
    """End the newest check with what it has found."""

    def finish(**fields: Any) -> Job:
        return act(JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED, summary=report(**fields))

    return finish


def test_a_dataset_page_asks_by_itself_and_then_shows_what_was_found(client: TestClient, finish: Act) -> None:
    page = client.get("/datasets/1").text
    assert f'hx-post="{URL}" hx-trigger="load"' in page
    waiting = client.post(URL, headers=HTMX).text
    assert "Waits for the worker" in waiting
    assert f'hx-get="{URL}/result?job=' in waiting
    job = finish()
    assert client.get(f"/jobs/{job.id}").status_code == 200
    for page in (client.get("/datasets/1").text, client.get(URL).text, client.post(URL, headers=HTMX).text):
        assert "✓ All 1,234 rows can be used. No odd characters, and none repeats another." in text_of(page)
        assert "hx-trigger" not in page[page.index('id="doctor"') : page.index("Eval split")]
    assert "4 of them are also among the rows trained on" in text_of(page)


def test_problems_are_shown_by_kind_what_stops_training_first(client: TestClient, finish: Act) -> None:
    client.post(URL)
    problems = [
        {"row": 3, "field": "input", "kind": "bidi_control", "message": f"holds {HOSTILE}"},
        {"row": 7, "field": "", "kind": "refused", "message": "not that"},
    ]
    twice = [{"row": 9, "of": 8}]
    finish(
        problems=problems, counts={"bidi_control": 30, "refused": 1}, unusable=1, duplicates=20, duplicate_rows=twice
    )
    page = client.get(URL, headers=HTMX).text
    text = text_of(page)
    assert "✕ 1 of 1,234 rows cannot be used." in text
    assert text.index("refuses : 1 (of no use)") < text.index("direction of writing : 30")
    assert "and 29 more" in text
    assert "Row 9 says the same as row 8 and 19 more" in text
    assert HOSTILE not in page
    assert HOSTILE in html.unescape(page)
    assert '<a href="/datasets/1?first=7">Row 7</a>' in page


def test_lengths_are_drawn_and_told(client: TestClient, finish: Act) -> None:
    asked = f"{URL}?model=tiny&max_length=64"
    client.post(asked)
    finish(tokens=TOKENS)
    page = client.get(asked).text
    text = text_of(page)
    assert "200 of 1,234 rows are longer than max_length = 64 , 3 of them so that nothing of an answer is left." in text
    assert "max_length = 128 would cut none." in text
    assert "1 row becomes a sequence for each answer" in text
    assert "ChatML is used" in text
    assert "drop 1,034 (83.8 %) 1,000 (50.0 %)" in text
    assert page.count("<rect ") == 4
    assert 'class="cut" x1="71.111%"' in page  # 64 tokens of nine columns of ten
    assert "60 to 69 200" in text
    assert "70 or more 5" in text
    assert "style=" not in page
    job = html.unescape(re.search(r'href="(/jobs/new\?[^"]+overlong_rows=drop[^"]*)"', page).group(1))  # type: ignore[union-attr]
    form = client.get(job).text
    assert re.search(r'id="field-max_length"[^>]*value="64"', form)
    assert re.search(r'id="field-eval_max_rows"[^>]*value="512"', form)


def test_what_was_found_already_is_shown_while_it_runs_and_when_it_is_cancelled(client: TestClient, act: Act) -> None:
    client.post(URL)
    found = {"rows": 640, "problems": [], "counts": {"mojibake": 1}, "unusable": 0}
    job = act(JobStatus.STARTING, JobStatus.RUNNING, summary=found, step=5, max_steps=10, eta_seconds=61, phase="check")
    text = text_of(client.get(f"{URL}/result?job={job.id}", headers=HTMX).text)
    assert "Reads the rows… 50 % · 640 rows · ETA 1m 01s" in text
    assert "wrong encoding : 1" in text
    cancelled = client.post(f"{URL}/cancel?job={job.id}", headers=HTMX).text
    assert "Stops…" in cancelled
    act(JobStatus.CANCELLED)
    again = text_of(client.get(URL).text)
    assert "The check was cancelled after 640 rows." in again
    assert "Check again" in again


def test_a_check_that_failed_says_why_and_can_be_repeated(client: TestClient, act: Act) -> None:
    client.post(f"{URL}?model=tiny")
    error = {"kind": "chat_template", "message": "The chat template calls itself.", "advice": "Mend it."}
    job = act(JobStatus.STARTING, JobStatus.RUNNING, JobStatus.FAILED, error=error)
    page = client.get(f"{URL}?model=tiny").text
    assert "The chat template calls itself. Mend it." in text_of(page)
    assert "Try again" in page
    assert f"job={int(job.id or 0) + 1}" in client.post(f"{URL}?model=tiny", headers=HTMX).text


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("model=tiny&max_length=x", "max_length: 'x' is not a whole number"),
        ("model=tiny&max_length=2", "max_length: Input should be greater than or equal to 8"),
        ("model=none", "There is no base model 'none'."),
    ],
)
def test_what_cannot_be_asked_is_told_beside_the_form(client: TestClient, query: str, message: str) -> None:
    for answer in (client.get(f"{URL}?{query}"), client.post(f"{URL}?{query}", headers=HTMX)):
        assert answer.status_code == 422
        assert message in text_of(answer.text)
        assert 'aria-invalid="true"' in answer.text


def test_a_form_without_scripts_is_sent_on(client: TestClient) -> None:
    answer = client.post(f"{URL}?model=tiny", follow_redirects=False)
    assert answer.status_code == 303
    assert re.fullmatch(rf"{URL}\?model=tiny&job=\d+", answer.headers["location"])


def test_bars_fill_the_drawing_and_the_line_stands_where_rows_are_cut() -> None:
    chart = chart_of({"width": 20, "counts": [0, 4, 1, 0], "over": 0}, 40)
    assert [bar["count"] for bar in chart["bars"]] == [4, 1]
    assert (chart["bars"][0]["y"], chart["bars"][0]["height"]) == (TOP, BASE - TOP)
    assert (chart["line"], chart["over"]) == (50.0, None)
    assert chart["ticks"] == [(0.0, "0"), (25.0, "20"), (50.0, "40"), (75.0, "60")]
    assert chart_of({"width": 20, "counts": [1], "over": 9}, 40)["line"] is None
