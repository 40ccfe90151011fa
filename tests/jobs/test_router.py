"""Pages of jobs over HTTP."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.answers import submit_generation
from app.core.jobs.merges import submit_merge
from app.core.jobs.status import JobStatus
from app.core.metrics.models import MemoryReading
from app.core.metrics.store import put_metrics
from app.core.paths import DataFolder
from tests.jobs.steps import MakeJob, advance

EVIL = "</script><img src=x onerror=alert(1)>"


def test_list_filters_by_status_and_name_in_the_url(client: TestClient, database: Database, make_job: MakeJob) -> None:
    make_job("alpha")
    advance(database, make_job("beta"), JobStatus.CANCELLED)
    assert "alpha" in (page := client.get("/jobs?status=queued").text)
    assert "beta" not in page
    assert "alpha" not in client.get("/jobs?q=bet").text
    assert "No job matches" in client.get("/jobs?q=100%25").text
    partial = client.get("/jobs?q=bet", headers={"HX-Request": "true"})
    assert partial.text.lstrip().startswith('<section id="job-list"')
    assert partial.headers["vary"] == "HX-Request"


def test_list_counts_the_steps_of_training_alone(
    client: TestClient, database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    source = advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED)
    with database.write() as session:
        session.add(Artifact(job_id=source.key, kind="adapter", path="adapter", bytes=1, created_at=0.0))
    with database.write() as session:
        merge = submit_merge(session, folder, source)
    advance(database, merge, JobStatus.STARTING, JobStatus.RUNNING, step=2, max_steps=4)
    advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING, step=3, max_steps=7)
    page = client.get("/jobs").text
    assert "3/7" in page
    assert "2/4" not in page


def test_list_pages(client: TestClient, make_job: MakeJob) -> None:
    for number in range(51):
        make_job(f"job {number:02}")
    assert "job 50" in (first := client.get("/jobs").text)
    assert "job 00" not in first
    assert "page=2" in first
    assert "job 00" in client.get("/jobs?page=2").text


def test_page_of_a_running_job_holds_all_that_happened_and_where_the_stream_goes_on(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = advance(database, make_job("live"), JobStatus.STARTING, JobStatus.RUNNING, phase="train", step=2, max_steps=8)
    with database.write() as session:
        put_metrics(session, job.key, 1, 1.0, {"loss": 2.5})
        put_metrics(session, job.key, 2, 2.0, {"loss": 2.25, "eval_loss": 2.0})
        session.add(MemoryReading(job_id=job.id, time=5.0, data={"available": False, "devices": [], "host": {}}))
        log.append(session, EventKind.LOG, {"lines": ["first line", EVIL]}, job_id=job.id)
        log.append(session, EventKind.SAMPLE, {"prompt": EVIL, "text": "no", "model": "base"}, job_id=job.id, step=0)
    with database.read() as session:
        latest = log.latest_id(session)
    page = client.get(f"/jobs/{job.id}").text
    figures = re.findall(r'data-chart="(\w+)" data-job="(\d+)" data-url="([^"]+)"', page)
    kinds = ("loss", "memory", "learning_rate", "grad_norm", "speed")
    assert figures == [(kind, str(job.id), f"/jobs/{job.id}") for kind in kinds]
    assert "2.25" not in page[page.index("data-chart=") :]  # points are fetched: a page is no larger for a longer run
    assert f"/events?after={latest}&amp;job={job.id}" in page
    assert "phase: <strong>train</strong>" in page
    assert "25 % · step 2/8" in page
    assert "first line\n&lt;/script&gt;&lt;img" in page
    assert EVIL not in page


def test_failed_job_opens_no_stream_and_shows_its_error_with_its_last_words(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    error = {
        "kind": "child_died",
        "message": f"Its process was killed. {EVIL}",
        "advice": "Clone it.",
        "log_tail": ["boom", EVIL],
    }
    job = make_job()
    with database.write() as session:
        log.append(session, EventKind.LOG, {"lines": ["before", "boom", EVIL]}, job_id=job.id)
    job = advance(database, job, JobStatus.STARTING, JobStatus.RUNNING, JobStatus.FAILED, error=error)
    page = client.get(f"/jobs/{job.id}").text
    assert "hx-sse:connect" not in page
    assert "✕ Its process was killed. &lt;/script" in page
    assert "kind: <code>child_died</code>" in page
    assert "Clone it." in page
    error_box, rest = page.split('id="job-error"')[1].split("</article>", 1)
    assert "boom\n&lt;/script" in error_box
    assert f'href="/jobs/{job.id}/logs"' in error_box
    assert "before\nboom\n&lt;/script" in rest  # the log's end, below


def test_ended_job_shows_neither_a_phase_nor_charts_without_points(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING, phase="sample")
    page = client.get(f"/jobs/{job.id}").text
    assert "phase: <strong>sample</strong>" in page
    assert page.count("data-chart=") == 6
    advance(database, job, JobStatus.COMPLETED)
    page = client.get(f"/jobs/{job.id}").text
    assert "phase:" not in page
    assert "data-chart=" not in page


def test_job_that_waits_again_after_a_loss_shows_no_old_progress(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING, step=4, max_steps=8)
    assert "50 % · step 4/8" in client.get(f"/jobs/{job.id}").text
    with database.write() as session:
        queue.interrupt(session, queue.get_job(session, job.key))
    page = client.get(f"/jobs/{job.id}").text
    assert "queued" in page
    assert "<progress" not in page


@pytest.mark.parametrize(
    ("base", "tokens", "stop_reason", "shown"),
    [
        (False, 4, "eos", ["Answer of the tuned model", "the model ended its answer"]),
        (True, 10, "length", ["Answer of the base model", "the limit of tokens was reached"]),
        (True, 4, "length", ["the context of the model was full"]),
    ],
)
def test_playground_job_shows_what_was_asked_of_which_model_and_the_answer(
    client: TestClient,
    database: Database,
    make_job: MakeJob,
    base: bool,
    tokens: int,
    stop_reason: str,
    shown: list[str],
) -> None:
    source = advance(database, make_job("mine"), JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED)
    with database.write() as session:
        session.add(Artifact(job_id=source.key, kind="adapter", path="adapter", bytes=1, created_at=0.0))
    with database.write() as session:
        job = submit_generation(session, source, f"Why {EVIL}?", base=base, max_new_tokens=10)
    job = advance(database, job, JobStatus.STARTING, JobStatus.RUNNING, step=4, max_steps=10)
    page = client.get(f"/jobs/{job.id}").text
    assert "Why &lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;?" in page
    assert "4 of at most 10 tokens" in page
    assert "The answer appears here" in page
    summary = {"text": f"So {EVIL}.", "tokens": tokens, "stop_reason": stop_reason}
    advance(database, job, JobStatus.COMPLETED, summary=summary)
    page = client.get(f"/jobs/{job.id}").text
    assert "So &lt;/script&gt;" in page
    assert f"{tokens} of at most 10 tokens" in page
    assert all(text in page for text in shown)
    assert "<progress" not in page
    assert " %" not in page


def test_config_is_shown_as_yaml_writes_it(client: TestClient, make_job: MakeJob) -> None:
    page = client.get(f"/jobs/{make_job(use_rslora=True, target_modules=['q_proj', 'v_proj']).id}").text
    for name, value in (("use_rslora", "true"), ("target_modules", "q_proj, v_proj"), ("r", "16")):
        assert f"<code>{name}</code></th><td>{value}</td>" in page


def test_samples_say_why_there_are_none_without_an_eval_split(client: TestClient, make_job: MakeJob) -> None:
    assert "so there are no prompts" in client.get(f"/jobs/{make_job(eval_fraction=0).id}").text
    assert "so there are no prompts" not in client.get(f"/jobs/{make_job().id}").text


def test_samples_say_that_long_answers_are_cut(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = make_job()
    assert "long answers are cut short" not in client.get(f"/jobs/{job.id}/samples").text
    with database.write() as session:
        log.append(session, EventKind.SAMPLE, {"prompt": "p", "text": "t", "model": "base"}, job_id=job.id, step=0)
    assert "long answers are cut short" in client.get(f"/jobs/{job.id}/samples").text


def test_cancel_of_a_queued_job_is_done_at_once_and_refused_afterwards(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = make_job()
    response = client.post(f"/jobs/{job.id}/cancel", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, f"/jobs/{job.id}")
    with database.read() as session:
        assert queue.get_job(session, job.key).status == JobStatus.CANCELLED
    assert client.post(f"/jobs/{job.id}/cancel").status_code == 409


def test_cancel_of_a_running_job_is_asked_for_and_said(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING)
    assert "waiting for its process to end" in client.post(f"/jobs/{job.id}/cancel").text
    with database.read() as session:
        stored = queue.get_job(session, job.key)
    assert (stored.status, stored.cancel_requested, stored.save_requested) == (JobStatus.RUNNING, True, False)


def test_stop_and_save_is_asked_for(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING)
    client.post(f"/jobs/{job.id}/cancel", data={"save": "true"})
    with database.read() as session:
        stored = queue.get_job(session, job.key)
    assert (stored.cancel_requested, stored.save_requested) == (False, True)


def test_log_is_downloaded_as_text(client: TestClient, folder: DataFolder, make_job: MakeJob) -> None:
    job = make_job()
    assert client.get(f"/jobs/{job.id}/log").text == ""
    folder.job(job.key).mkdir(parents=True, exist_ok=True)
    (folder.job(job.key) / "train.log").write_text("<b>line</b>\n")
    response = client.get(f"/jobs/{job.id}/log")
    assert response.text == "<b>line</b>\n"
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert f'filename="loradeck-job-{job.id}.log"' in response.headers["content-disposition"]


@pytest.mark.parametrize("path", ["/jobs/99", "/jobs/99/overview", "/jobs/99/samples", "/jobs/99/log"])
def test_unknown_job_gets_404(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert "There is no job 99." in response.text


@pytest.mark.parametrize("verb", ["cancel", "merge"])
def test_reading_never_changes_a_job(client: TestClient, make_job: MakeJob, verb: str) -> None:
    assert client.get(f"/jobs/{make_job().id}/{verb}").status_code in (404, 405)


def test_an_ended_training_shows_what_came_of_it(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING)
    assert "Outcome" not in client.get(f"/jobs/{job.id}").text
    with database.write() as session:
        for step, loss in ((0, 3.0), (5, 1.25), (8, 1.5)):
            put_metrics(session, job.key, step, 1.0, {"eval_loss": loss})
    advance(database, job, JobStatus.COMPLETED, summary={"rows_train": 40, "rows_dropped": 2, "saved_step": 8})
    page = re.sub(r"<[^>]+>", " ", client.get(f"/jobs/{job.id}").text)
    page = re.sub(r"\s+", " ", page)
    assert "train · lora · sft" in page
    assert "best eval loss 1.25 at step 5 what was saved is of step 8" in page
    assert "sequences trained on 40 " in page
    assert "rows dropped 2 " in page


def test_rewards_are_drawn_for_preference_jobs_where_there_are_any(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING)
    with database.write() as session:
        put_metrics(session, job.key, 1, 1.0, {"loss": 0.5, "rewards_margin": 0.25, "rewards_accuracy": 1.0})
    assert 'data-chart="rewards"' not in client.get(f"/jobs/{job.id}").text
    with database.write() as session:
        stored = queue.get_job(session, job.key)
        stored.spec = {**stored.spec, "task": "dpo"}
        session.add(stored)
    page = client.get(f"/jobs/{job.id}").text
    assert re.findall(r'data-chart="(\w+)"', page) == [
        *("loss", "memory", "rewards", "accuracy", "learning_rate", "grad_norm", "speed", "gpu")
    ]
    assert "reward margin" in page


def test_an_empty_answer_is_said_to_be_one(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = make_job()
    with database.write() as session:
        log.append(session, EventKind.SAMPLE, {"prompt": "p", "text": "", "model": "base"}, job_id=job.id, step=0)
    assert "(an empty answer)" in client.get(f"/jobs/{job.id}/samples").text
