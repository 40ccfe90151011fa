"""The page that lays runs over each other, over HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobKind, JobStatus
from app.core.metrics.models import MemoryReading
from app.core.metrics.store import put_metrics

MakeJob = Callable[..., Job]


@pytest.fixture
def runs(database: Database, make_job: MakeJob) -> list[Job]:
    """Three trainings that ended: the second has the least loss, the third the least eval loss."""
    jobs = [make_job(f"run {number}", r=8 * number, learning_rate=1e-4) for number in (1, 2, 3)]
    with database.write() as session:
        for job, losses, evals in zip(jobs, ([2.0, 1.5], [2.0, 1.25], [2.0, 1.75]), (1.9, 1.8, 1.7), strict=True):
            stored = queue.get_job(session, job.key)
            stored.status, stored.step, stored.started_at, stored.finished_at = JobStatus.COMPLETED, 2, 10.0, 70.0
            stored.summary = {"train_seconds": 30.0 + job.key, "tokens_per_second": 100.0}
            for step, loss in enumerate(losses, 1):
                put_metrics(session, job.key, step, 10.0 + step, {"loss": loss})
            put_metrics(session, job.key, 2, 12.0, {"eval_loss": evals})
            host = {"child_rss_bytes": job.key * 2**30}
            session.add(MemoryReading(job_id=job.id, time=11.0, data={"available": False, "devices": [], "host": host}))
            for model, step in (("base", 0), ("tuned", 1), ("tuned", 2)):
                data = {"prompt": "Say hi.", "text": f"{model} {job.name} at {step}", "model": model}
                log.append(session, EventKind.SAMPLE, data, job_id=job.key, step=step)
    return jobs


def _cells(page: str, label: str) -> list[str]:
    """The cells of the row that begins with a label, as text."""
    row = re.search(rf'<tr><th scope="row">(?:<code>)?{label}\b.*?</tr>', page, re.DOTALL)
    assert row is not None, label
    found = re.findall(r"<td[^>]*>(.*?)</td>", row[0], re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in found]


@pytest.mark.parametrize("query", ["ids=1,2,3", "ids=1&ids=2&ids=3", "ids=1,2&ids=3,3,"])
def test_runs_are_named_in_the_order_asked_for(client: TestClient, runs: list[Job], query: str) -> None:
    page = client.get(f"/compare?{query}").text
    assert re.findall(r'"label": ?"(#\d run \d)"', page) == ["#1 run 1", "#2 run 2", "#3 run 3"]
    assert "⚠" not in page[page.index("<main") : page.index("</main")]


def test_the_best_of_each_figure_is_said_in_words(client: TestClient, runs: list[Job]) -> None:
    page = client.get("/compare?ids=1,2,3").text
    assert _cells(page, "best loss") == ["1.5", "1.25 best", "1.75"]
    assert _cells(page, "final eval loss") == ["1.9", "1.8", "1.7 best"]
    assert _cells(page, "time") == ["31s best", "32s", "33s"]
    assert _cells(page, "tokens/s") == ["100", "100", "100"]
    assert _cells(page, "peak memory") == ["1.0 GiB best", "2.0 GiB", "3.0 GiB"]


def test_config_shows_what_differs_and_all_on_demand(client: TestClient, runs: list[Job]) -> None:
    page = client.get("/compare?ids=1,2,3").text
    assert _cells(page, "r") == ["8", "16", "24"]
    assert "<code>learning_rate</code>" not in page
    assert 'href="/compare?ids=1,2,3&amp;all=true#config-title"' in page
    everything = client.get("/compare?ids=1,2,3&all=true").text
    assert _cells(everything, "learning_rate") == ["0.0001"] * 3


def test_answers_to_the_same_prompt_stand_side_by_side(client: TestClient, runs: list[Job]) -> None:
    page = client.get("/compare?ids=1,3").text
    answers = page[page.index('id="answers-title"') :]
    assert "tuned run 1 at 2" in answers
    assert "tuned run 3 at 2" in answers
    assert "at 1" not in answers


def test_what_cannot_be_compared_is_named_and_the_rest_is_shown(
    client: TestClient, database: Database, runs: list[Job]
) -> None:
    with database.write() as session:
        merge = queue.enqueue(session, Job(name="m", kind=JobKind.MERGE, created_at=0))
    page = client.get(f"/compare?ids=1,99,{merge.id},<b>,2,{'9' * 80}").text
    for problem in ("There is no job 99.", f"Job {merge.id} is no training (merge).", "There is no job &lt;b&gt;."):
        assert problem in page
    assert _cells(page, "best loss") == ["1.5", "1.25 best"]


@pytest.mark.parametrize("query", ["", "?ids=", "?ids=7777"])
def test_without_a_run_some_are_offered(client: TestClient, runs: list[Job], query: str) -> None:
    page = client.get(f"/compare{query}")
    assert page.status_code == 200
    assert page.text.count('type="checkbox" name="ids"') == 3
    assert "data-chart" not in page.text


def test_one_run_is_shown_with_others_to_add(client: TestClient, runs: list[Job]) -> None:
    page = client.get("/compare?ids=2").text
    assert "Choose what to compare it with" in page
    assert 'value="2" checked' in page
    assert "<code>learning_rate</code>" in page


def test_where_nothing_was_trained_the_page_says_so(client: TestClient) -> None:
    assert "No training has begun yet" in client.get("/compare").text


def test_no_more_than_twenty(client: TestClient, runs: list[Job]) -> None:
    ids = ",".join(map(str, [1, 2, 3, *range(1000, 1020)]))
    assert "3 more are left out: at most 20" in client.get(f"/compare?ids={ids}").text
