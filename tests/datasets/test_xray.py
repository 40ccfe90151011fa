"""The X-ray's page: asked for, waited for, read, and jumped through. The worker's part is played here."""

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
from app.core.models.models import ModelStatus
from app.core.models.registry import list_models
from app.core.paths import DataFolder
from app.datasets.xray_view import PART_TOKENS, pack_words, row_context, visible

HTMX = {"HX-Request": "true"}
HOSTILE = "<img src=x onerror=alert(1)>"
Settle = Callable[..., int]


def token(text: str, trained: bool = False, special: bool = False) -> dict[str, Any]:
    return {"id": 7, "text": text, "trained": trained, "special": special}


def row(number: int, *flags: str, tokens: list[Any] | None = None, **fields: Any) -> dict[str, Any]:
    tokens = tokens if tokens is not None else [token("<s>", special=True), token(" Hi\n"), token("Yo", trained=True)]
    runs = [{"trained": False, "tokens": 2, "text": "<s> Hi\n"}, {"trained": True, "tokens": 1, "text": "Yo"}]
    sequence = {"name": None, "start": 0, "end": len(tokens), "trained_tokens": 1, "total_tokens": len(tokens),
                "kept": True, "runs": runs, "pack": None}  # fmt: skip
    return {"row": number, "tokens": tokens, "trained_tokens": 1, "total_tokens": 3, "left_out_tokens": 0,
            "flags": ["bos", *flags], "reason": None, "sequences": [sequence], **fields}  # fmt: skip


def xray(*rows: Any, **fields: Any) -> dict[str, Any]:
    return {"first": 1, "last": len(rows), "total": 4, "rows": list(rows), "packing": None, "bos": "<s>", "eos": None,
            "default_template": False, "exact": True, **fields}  # fmt: skip


@pytest.fixture
def settle(database: Database, folder: DataFolder) -> Settle:
    """End the newest preview job as the worker does; returns its id."""

    def settle(answer: dict[str, Any], status: JobStatus = JobStatus.COMPLETED, **fields: Any) -> int:
        with database.write() as session:
            job = list_jobs(session, kinds=[JobKind.PREVIEW]).jobs[0]
            folder.job(job.key).mkdir(parents=True)
            (folder.job(job.key) / XRAY_FILE).write_text(json.dumps(answer))
            for to in (JobStatus.STARTING, JobStatus.RUNNING):
                job = queue.advance(session, job, to)
            summary = {"first": answer["first"], "last": answer["last"], "found": None, "searched_to": None}
            fields.setdefault("summary", summary)
            return queue.advance(session, job, status, **fields).key

    return settle


@pytest.fixture
def url(client: TestClient) -> str:
    (dataset,) = (each for each in client.get("/api/v1/datasets").json() if each["name"] == "small")
    return f"/datasets/{dataset['id']}/xray"


def ask(client: TestClient, url: str, **params: Any) -> Any:
    return client.post(url, params=params, headers=HTMX)


def test_looking_asks_by_a_request_of_its_own_and_then_waits(client: TestClient, url: str, settle: Settle) -> None:
    page = client.get(url)
    assert f'hx-post="{url}" hx-trigger="load"' in page.text
    assert client.get("/api/v1/jobs", params={"kind": "preview"}).json()["total"] == 0
    waiting = ask(client, url)
    job = client.get("/api/v1/jobs", params={"kind": "preview"}).json()["jobs"][0]["id"]
    assert f'hx-get="{url}?job={job}" hx-trigger="every 600ms"' in waiting.text
    assert "Waits for the worker" in waiting.text
    settle(xray(row(1)))
    ready = client.get(url, params={"job": job}, headers=HTMX).text
    assert 'hx-trigger="every' not in ready
    assert "Row 1" in ready
    assert "<html" not in ready


def test_without_script_a_form_asks_and_the_page_comes_again(client: TestClient, url: str) -> None:
    answer = client.post(url, params={"max_length": 64}, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(f"{url}?job=")
    assert "max_length=64" in answer.headers["location"]
    assert "<noscript><a href=" in client.get(answer.headers["location"]).text


def test_tokens_are_marked_and_told_as_text(client: TestClient, url: str, settle: Settle) -> None:
    ask(client, url)
    settle(xray(row(1, "cut"), row(2, "end_of_turn_trained")))
    page = client.get(url).text
    assert '<span class="t s" title="7">&lt;s&gt;</span><span class="t" title="7">\u200b·Hi↵\n</span>' in page
    assert '<span class="t l" title="7">Yo</span>' in page
    assert "<dt>Learned, 1 token</dt><dd>Yo</dd>" in page
    assert "1 of 3 tokens learned" in page
    assert "⚠ cut at max_length" in page
    assert "✓ end of turn is learned" in page
    assert page.count('title="7"') == 3  # of the second row only what it is about
    second = client.get(f"{url}/row", params={"row": 2}).text
    assert second.startswith('<div id="tokens-2">')
    assert 'title="7"' in second
    assert client.get(f"{url}/row", params={"row": 4}).status_code == 404


def test_what_rows_and_tokenizers_hold_is_text(client: TestClient, url: str, settle: Settle) -> None:
    ask(client, url)
    odd = row(1, "dropped", tokens=[token(HOSTILE)], reason=HOSTILE)
    odd["sequences"][0]["runs"][0]["text"] = HOSTILE
    settle(xray(odd, bos=HOSTILE))
    page = client.get(url).text
    assert "<img" not in page
    assert page.count("&lt;img") == 4


def test_the_next_suspicious_row_is_linked_or_searched_for(client: TestClient, url: str, settle: Settle) -> None:
    ask(client, url)
    settle(xray(row(1), row(2), row(3, "cut")))
    assert f'href="{url}?row=3">Next suspicious row: 3</a>' in client.get(url).text
    assert f'hx-post="{url}?row=4&amp;find=True"' in client.get(url, params={"row": 3}).text
    search = {"row": 4, "find": True}
    assert "Waits for the worker" in ask(client, url, **search).text
    found = settle(xray(row(4, "cut"), first=4, last=4), summary={"first": 4, "last": 4, "found": 4, "searched_to": 4})
    answer = client.get(url, params={**search, "job": found}, headers=HTMX)
    assert answer.headers["hx-redirect"] == f"{url}?row=4"
    assert "No suspicious row follows." in client.get(url, params={"row": 4}).text


def test_a_search_that_finds_nothing_says_how_far_it_looked(client: TestClient, url: str, settle: Settle) -> None:
    ask(client, url, row=2, find=True)
    job = settle(xray(first=2, last=1), summary={"first": 2, "last": 1, "found": None, "searched_to": 3})
    shown = client.get(url, params={"row": 2, "find": True, "job": job}).text
    assert "No suspicious row among rows 2 to 3" in shown
    assert "Go on from row 4" in shown


def test_a_failure_is_told_and_does_not_ask_again_by_itself(client: TestClient, url: str, settle: Settle) -> None:
    ask(client, url)
    error = {"kind": "chat_template", "message": f"The template of {HOSTILE} loops.", "advice": "Mend it."}
    job = settle(xray(), JobStatus.FAILED, error=error)
    shown = client.get(url, params={"job": job}, headers=HTMX).text
    assert "loops." in shown
    assert "Mend it." in shown
    assert 'hx-trigger="load"' not in shown
    assert "every 600ms" not in shown
    assert "<img" not in shown


REFUSED = [
    ({"model": "nobody"}, 404, "there is no base model &#39;nobody&#39;"),
    ({"row": 9}, 404, "small has no row 9. Its last row is 4."),
    ({"max_length": "x"}, 422, "max_length: Input should be a valid integer"),
    ({"overlong_rows": "split"}, 422, "overlong_rows: only plain text"),
    ({"task": "dpo"}, 422, "dataset: small holds messages rows"),
]


def test_what_cannot_be_shown_is_said_by_its_field(client: TestClient, url: str) -> None:
    for params, status, words in REFUSED:
        page = client.get(url, params=params)
        assert page.status_code == status
        assert words in page.text
        assert client.post(url, params=params, headers=HTMX).status_code == status
    assert client.get("/api/v1/jobs", params={"kind": "preview"}).json()["total"] == 0


def test_settings_stay_from_page_to_page(client: TestClient, url: str, settle: Settle) -> None:
    params = {"model": "tiny", "max_length": 64, "packing": "true", "seed": 3, "eval_fraction": "", "learning_rate": 1}
    ask(client, url, **params)
    packing = {"whole": False, "tokenized": 1, "packs": 1, "sequences": 2}
    settle(xray(*map(row, range(1, 4)), packing=packing, default_template=True, exact=False))
    page = client.get(url, params=params).text
    assert f"{url}?model=tiny&amp;row=4&amp;max_length=64&amp;packing=True&amp;seed=3" in page
    packed = "only 1 could be tokenized in the time there is for a preview"
    for words in ("ChatML is used", packed, "does not decode token by token"):
        assert words in page


def test_a_long_row_is_drawn_in_parts() -> None:
    tokens = [token("a")] * (PART_TOKENS + 5)
    pair = row(1, tokens=tokens)
    one = pair["sequences"][0]
    pair["sequences"] = [{**one, "name": "chosen", "end": 10}, {**one, "name": "rejected", "start": 10}]
    first, last = (row_context(pair, start, 512) for start in (0, PART_TOKENS))  # type: ignore[arg-type]
    assert [(part.title, len(part.tokens)) for part in first["parts"]] == [
        ("Chosen", 10),
        ("Rejected", PART_TOKENS - 10),
    ]
    assert (first["before"], first["behind"]) == (None, PART_TOKENS)
    assert [(part.title, len(part.tokens), part.begins) for part in last["parts"]] == [("Rejected", 5, False)]
    assert (last["before"], last["behind"]) == (0, None)


def test_what_cannot_be_seen_is_shown() -> None:
    assert visible(" a\n\tb\u200b\u202e\x00\u00a0") == "\u200b·a↵\n⇥\tb<U+200B><U+202E><U+0000><U+00A0>"
    assert visible("👩\u200d🚀 é") == "👩\u200d🚀\u200b·é"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([1], "Alone in its pack (90 of 100 tokens)."),
        ([1, 5], "In pack 2 (90 of 100 tokens), place 1 of 2, with row 5."),
        (
            [1, *range(2, 13)],
            "In pack 2 (90 of 100 tokens), place 1 of 12, with rows 2, 3, 4, 5, 6, 7, 8, 9 and 3 more.",
        ),
    ],
)
def test_who_shares_a_pack_is_named(rows: list[int], words: str) -> None:
    sequence = {**row(1)["sequences"][0], "pack": {"number": 2, "place": 1, "rows": rows, "tokens": 90}}
    assert pack_words(sequence, 1, 100) == words  # type: ignore[arg-type]


def test_the_dataset_and_the_form_link_to_the_xray(client: TestClient, url: str) -> None:
    assert f'href="{url}?row=2"' in client.get(url.removesuffix("/xray")).text
    form = client.get("/jobs/new", params={"dataset": "small", "base_model": "tiny", "max_length": 96}).text
    assert f'href="{url}?model=tiny&amp;task=sft&amp;max_length=96&amp;overlong_rows=truncate' in form
    link = client.get("/jobs/new/xray", params={"dataset": "small", "base_model": "tiny", "packing": "true"}).text
    assert f'href="{url}?model=tiny&amp;packing=true"' in link
    gone = client.get("/jobs/new/xray", params={"dataset": "gone", "base_model": "tiny"}).text
    assert "hidden" in gone
    assert "href" not in gone


def test_the_page_looks_again_by_itself_while_the_only_model_is_imported(
    client: TestClient, database: Database, url: str
) -> None:
    with database.write() as session:
        for model in list_models(session):
            model.status = ModelStatus.IMPORTING
    page = client.get(url).text
    assert "still being imported" in page
    assert '<meta http-equiv="refresh" content="3">' in page
    with database.write() as session:
        for model in list_models(session):
            model.status = ModelStatus.FAILED
    page = client.get(url).text
    assert "there is none yet" in page
    assert "http-equiv" not in page
