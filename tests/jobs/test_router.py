"""Pages of jobs over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.answers import submit_generation
from app.core.jobs.merges import submit_merge
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.queries import list_jobs
from app.core.jobs.status import JobKind, JobStatus
from app.core.metrics.models import MemoryReading
from app.core.metrics.store import put_metrics
from app.core.models.models import BaseModel, ModelStatus
from app.core.paths import DataFolder
from tests.receipts import write_receipt

MakeJob = Callable[..., Job]
FORM = {"base_model": "tiny", "dataset": "small", "name": "first", "r": "8"}
EVIL = "</script><img src=x onerror=alert(1)>"


def advance(database: Database, job: Job, *statuses: JobStatus, **fields: object) -> Job:
    for status in statuses:
        with database.write() as session:
            last = status == statuses[-1]
            job = queue.advance(session, queue.get_job(session, job.key), status, **(fields if last else {}))
    return job


def count_jobs(database: Database) -> int:
    with database.read() as session:
        return list_jobs(session).total


def test_valid_form_queues_the_job_and_sends_the_browser_to_it(client: TestClient, database: Database) -> None:
    response = client.post("/jobs", data=FORM, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/jobs/1")
    with database.read() as session:
        job = queue.get_job(session, 1)
    assert (job.name, job.spec["r"], job.status) == ("first", 8, JobStatus.QUEUED)


def test_htmx_is_sent_on_by_its_own_header(client: TestClient) -> None:
    response = client.post("/jobs", data=FORM, headers={"HX-Request": "true"})
    assert response.headers["hx-redirect"] == "/jobs/1"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("base_model", "nobody", "unknown base model"),
        ("dataset", "nothing", "unknown dataset"),
        ("r", "0", "greater than or equal to 1"),
        ("learning_rate", "0", "greater than 0"),
        ("target_modules", "q_proj, w_proj", "unknown w_proj; tiny has: down_proj, gate_proj"),
        ("surprise", "1", "unknown field"),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}])
def test_bad_value_gets_422_beside_its_field_and_queues_nothing(
    client: TestClient, database: Database, headers: dict[str, str], field: str, value: str, message: str
) -> None:
    response = client.post("/jobs", data={**FORM, field: value}, headers=headers)
    page = unescape(response.text)
    assert response.status_code == 422
    errors = page[page.index(f'id="errors-{field}"' if field != "surprise" else 'id="errors-form"') :]
    assert message in errors[: errors.index("</ul>")]
    assert f'value="{value}"' in page or field == "surprise"
    assert 'value="first"' in page
    assert ("<html" in page) is not bool(headers)
    assert response.headers["vary"] == "HX-Request"
    assert count_jobs(database) == 0


def test_all_faults_are_shown_at_once(client: TestClient) -> None:
    page = client.post("/jobs", data={**FORM, "r": "0", "learning_rate": "-1", "dataset": ""}).text
    assert {"errors-r", "errors-learning_rate", "errors-dataset"} <= set(re.findall(r'id="(errors-[\w]+)"', page))


def test_clone_fills_the_form_with_the_job(client: TestClient, make_job: MakeJob) -> None:
    job = make_job("mine", r=4, target_modules=["q_proj", "v_proj"])
    page = client.get(f"/jobs/new?from={job.id}").text
    assert 'name="r" value="4"' in page
    assert 'value="q_proj, v_proj"' in page
    assert 'value="mine"' in page
    assert client.get("/jobs/new?from=99").status_code == 404


def test_new_job_starts_from_what_was_trained_on_last(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    with database.write() as session:
        session.add(BaseModel(name="a-first-by-name", status=ModelStatus.READY, created_at=0.0))
    make_job()
    page = client.get("/jobs/new").text
    assert '<option value="tiny" selected>' in page
    assert '<option value="a-first-by-name" selected>' in client.get("/jobs/new?base_model=a-first-by-name").text
    assert page.index('name="name"') < page.index('name="base_model"')


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
    points = [json.loads(text) for text in re.findall(r"data-points>(.*?)</script>", page)]
    assert points[0] == {"loss": {"step": [1, 2], "value": [2.5, 2.25]}, "eval_loss": {"step": [2], "value": [2.0]}}
    assert points[1]["time"] == [5.0]
    assert f"/events?after={latest}&amp;job={job.id}" in page
    assert "phase: <strong>train</strong>" in page
    assert "25 % · step 2/8" in page
    assert "first line\n&lt;/script&gt;&lt;img" in page
    assert EVIL not in page


def test_failed_job_opens_no_stream_and_shows_its_error_and_its_last_lines_once(
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
    assert page.count("boom\n&lt;/script") == 1
    assert 'href="#log"' in page


def test_ended_job_shows_neither_a_phase_nor_charts_without_points(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING, phase="sample")
    page = client.get(f"/jobs/{job.id}").text
    assert "phase: <strong>sample</strong>" in page
    assert page.count("data-chart=") == 2
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


def test_merge_is_offered_with_the_adapter_then_followed(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = advance(database, make_job("base job"), JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED)
    assert client.post(f"/jobs/{job.id}/merge").status_code == 409
    with database.write() as session:
        session.add(Artifact(job_id=job.key, kind="adapter", path="adapter", bytes=1024, created_at=0.0))
    page = client.get(f"/jobs/{job.id}").text
    assert "Download adapter (1.0 KiB)" in page
    assert f'action="/jobs/{job.id}/merge"' in page
    page = client.post(f"/jobs/{job.id}/merge").text
    with database.read() as session:
        merge = queue.get_job(session, job.key + 1)
    assert merge.kind == JobKind.MERGE
    assert f"&amp;job={merge.id}" in page  # the page now follows the merge
    assert f'action="/jobs/{job.id}/merge"' not in page


def test_merged_model_is_offered_only_where_it_passed_its_verification(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED)
    merged = Artifact(job_id=job.key, kind="merged", path="merged", bytes=1, created_at=0.0, verified=False)
    with database.write() as session:
        session.add(merged)
    assert "Download merged model" not in client.get(f"/jobs/{job.id}").text
    with database.write() as session:
        session.get_one(Artifact, merged.id).verified = True
    assert "Download merged model" in client.get(f"/jobs/{job.id}").text


def test_a_checkpoint_can_be_merged_from_the_page(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = advance(database, make_job("tuned", method="qlora"), JobStatus.STARTING, JobStatus.RUNNING)
    with database.write() as session:
        kept = Artifact(job_id=job.key, kind="checkpoint", path="c", step=50, bytes=1, created_at=0.0)
        session.add(kept)
    page = client.get(f"/jobs/{job.id}").text
    assert "checkpoint at step 50" in page
    assert "the adapter</option>" not in page  # there is none yet
    assert '<option value="original">' in page
    client.post(f"/jobs/{job.id}/merge", data={"dtype": "fp32", "onto": "original", "checkpoint": "50"})
    with database.read() as session:
        merge = queue.get_job(session, job.key + 1)
    wanted = {"job": job.id, "dtype": "fp32", "onto": "original", "checkpoint": 50}
    assert (merge.kind, merge.spec) == (JobKind.MERGE, wanted)
    refused = client.post(f"/jobs/{job.id}/merge", data={"checkpoint": "fifty"})
    assert (refused.status_code, "fifty" in refused.text) == (422, True)


def test_the_certificate_stands_on_the_page(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = make_job(method="qlora")
    certificate = {
        "passed": True, "how": "streamed", "base": "original", "dtype": "bfloat16", "weights": 272,
        "values": 134515008, "values_differing": 0, "max_logit_difference": 0.125, "mean_logit_difference": 0.01,
        "relative_difference": 0.012, "kl_divergence": 5.7e-5, "compared_tokens": 90, "greedy_tokens": 24,
        "greedy_tokens_same": 23, "greedy_tokens_equal": False, "adapter_effect": 0.3, "vocabulary_size": 49152,
        "tied_embeddings": True, "eos_token_id": [2], "template_sha256": None, "warning": None,
        "eval_loss": {"merged": 1.5481, "base_and_adapter": 1.5479, "dequantised": 1.597, "original": 1.5479,
                      "tokens": 40, "rows": 3},
    }  # fmt: skip
    merged = Artifact(
        job_id=job.key, kind="merged", path="merged", bytes=1, created_at=0.0, verified=True, certificate=certificate
    )
    with database.write() as session:
        session.add(merged)
    page = unescape(re.sub(r"\s+", " ", client.get(f"/jobs/{job.id}").text))
    for told in (
        "the original 16-bit base, not the quantised one",
        "134,515,008 values; each the same to the last bit",
        "at most 0.125 apart",
        "5.7e-05 nats",
        "23 of 24 the same",
        "the adapter on the dequantised base 1.5970, on the original one 1.5479",
        "share one weight",
    ):
        assert told in page


def test_what_rounding_may_have_cost_is_said_beside_the_download(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = make_job("coarse")
    certificate = {"passed": True, "warning": "Merge in fp32 to keep all of it."}
    merged = Artifact(
        job_id=job.key, kind="merged", path="merged", bytes=1, created_at=0.0, verified=True, certificate=certificate
    )
    with database.write() as session:
        session.add(merged)
    assert "Merge in fp32" in client.get(f"/jobs/{job.id}").text


def test_demo_button_queues_the_demo_job_where_its_model_is_registered(client: TestClient, database: Database) -> None:
    response = client.post("/jobs/demo")
    assert response.status_code == 422
    assert "unknown base model" in response.text
    assert count_jobs(database) == 0


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


def test_a_preset_is_applied_over_what_was_typed(client: TestClient) -> None:
    page = client.get(
        "/jobs/new", params={"apply": "quick-test", "preset": "", "name": "mine", "r": "99", "max_length": "333"}
    ).text
    assert 'name="preset" value="quick-test"' in page
    assert re.search(r'name="r" value="8"', page)
    assert re.search(r'name="max_length" value="333"', page), "a preset leaves what it says nothing about"
    assert 'value="mine"' in page
    region = client.get("/jobs/new?apply=balanced", headers={"HX-Request": "true"}).text
    assert region.lstrip().startswith("<form")
    assert 'aria-current="true">Balanced' in region


def test_a_length_is_offered_that_the_chosen_model_was_made_for(client: TestClient, database: Database) -> None:
    with database.write() as session:
        for name, length in (("short", 256), ("long", 4096)):
            session.add(BaseModel(name=name, status=ModelStatus.READY, max_length=length, created_at=0.0))
    for model, offered in (("short", 256), ("long", 512), ("tiny", 512)):
        page = client.get("/jobs/new", params={"base_model": model}).text
        assert f'data-baseline="{offered}"' in page
        assert f'name="max_length" value="{offered}"' in page


def test_a_dataset_that_is_refused_is_said_to_be_once(client: TestClient) -> None:
    page = unescape(client.post("/jobs", data={**FORM, "task": "dpo"}).text)
    assert page.count("small holds messages rows") == 1


def test_an_unknown_preset_is_not_found(client: TestClient) -> None:
    response = client.get("/jobs/new?apply=fastest")
    assert response.status_code == 404
    assert "quick-test" in response.text


def test_a_refused_form_keeps_its_preset(client: TestClient) -> None:
    response = client.post("/jobs", data={"preset": "balanced", "r": "-1"}, headers={"HX-Request": "true"})
    assert response.status_code == 422
    assert 'name="preset" value="balanced"' in response.text
    assert "changed from 16" in response.text


def test_attention_alone_is_warned_of_with_a_fix_and_the_models_own_modules(client: TestClient) -> None:
    region = client.get("/jobs/new/targets", params={"base_model": "tiny", "target_modules": "q_proj, v_proj"}).text
    assert "The model has: down_proj, gate_proj" in region
    assert "Attention alone" in region
    assert """data-fill='{"target_modules":"all-linear"}'""" in region
    quiet = client.get("/jobs/new/targets", params={"base_model": "tiny", "target_modules": "all-linear"}).text
    assert "Attention alone" not in quiet
    page = client.get("/jobs/new", params={"base_model": "tiny", "target_modules": "q_proj"}).text
    assert "Attention alone" in page


def test_another_method_shows_its_own_fields_and_starts_from_its_own_defaults(client: TestClient) -> None:
    page = client.get(
        "/jobs/new", params={**FORM, "learning_rate": "0.0002", "method": "full", "shown_for": "lora sft"}
    )
    assert 'name="learning_rate" value="2e-05"' in page.text
    assert 'name="lora_alpha"' not in page.text
    assert 'name="shown_for" value="full sft"' in page.text
    assert 'name="kept.r" value="8"' in page.text
    back = client.get("/jobs/new", params={"method": "lora", "shown_for": "full sft", "kept.r": "8"}).text
    assert 'name="r" value="8"' in back
    assert 'name="kept.' not in back


def test_fields_shown_for_another_choice_are_looked_at_before_anything_is_queued(
    client: TestClient, database: Database
) -> None:
    form = {**FORM, "learning_rate": "0.0002", "shown_for": "lora sft", "method": "full"}
    response = client.post("/jobs", data=form)
    assert response.status_code == 422
    assert "The fields follow the method and the task chosen now" in response.text
    assert 'name="learning_rate" value="2e-05"' in response.text
    assert count_jobs(database) == 0
    assert client.post("/jobs", data={**FORM, "shown_for": "lora sft"}, follow_redirects=False).status_code == 303


def test_datasets_say_what_their_rows_are_and_a_task_that_does_not_fit_is_told(
    client: TestClient, database: Database
) -> None:
    page = client.get("/jobs/new", params={"dataset": "small"}).text
    assert ">small (messages)</option>" in page
    assert "holds messages rows" not in page
    page = unescape(client.get("/jobs/new", params={"dataset": "small", "task": "dpo"}).text)
    assert "small holds messages rows; the task dpo learns from preference rows." in page
    with database.write() as session:
        dataset = session.exec(select(Dataset)).one()
        dataset.status = DatasetStatus.IMPORTING
        session.add(dataset)
    assert ">small (importing)</option>" in client.get("/jobs/new").text
    dataset.status = DatasetStatus.READY
    with database.write() as session:
        session.merge(dataset)
    region = client.get("/jobs/new/dataset", params={"dataset": "small", "task": "text"}).text
    assert region.lstrip().startswith('<div id="dataset-notes"')
    assert """data-fill='{"task":"sft"}'""" in region
    assert "note-warning" not in client.get("/jobs/new/dataset", params={"dataset": "gone", "task": "dpo"}).text


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
    assert re.findall(r'data-chart="(\w+)"', page) == ["loss", "rewards", "accuracy", "memory"]
    rewards = json.loads(re.findall(r"data-points>(.*?)</script>", page)[1])
    assert rewards["rewards_margin"] == {"step": [1], "value": [0.25]}
    assert rewards["eval_rewards_margin"] == {"step": [], "value": []}
    assert "reward margin" in page


@pytest.fixture
def completed(database: Database, folder: DataFolder, registered: tuple[BaseModel, Dataset], make_job: MakeJob) -> Job:
    """A completed training with its receipt."""
    summary = {"train_loss": 1.5, "eval_loss": 1.25}
    job = advance(
        database, make_job("mine"), JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED, summary=summary
    )
    write_receipt(folder, job, *registered)
    return job


def test_a_completed_training_shows_its_receipt_and_runs_again(
    client: TestClient, database: Database, completed: Job
) -> None:
    page = client.get(f"/jobs/{completed.id}").text
    assert f"sha256 {'ab' * 32}" in page
    assert ">torch</th><td>2.13.0</td>" in page
    assert f'action="/jobs/{completed.id}/rerun"' in page
    receipt = client.get(f"/jobs/{completed.id}/receipt")
    assert receipt.json()["seed"] == 42
    assert f'filename="loradeck-job-{completed.id}-receipt.json"' in receipt.headers["content-disposition"]
    response = client.post(f"/jobs/{completed.id}/rerun", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, f"/jobs/{completed.key + 1}")
    page = client.get(f"/jobs/{completed.key + 1}").text
    assert f'runs again <a href="/jobs/{completed.id}">' in page


@pytest.mark.parametrize(
    ("loss", "differences", "said"),
    [
        (1.25, [], ["✓ Same losses as job #1", "Same rows, model, versions and hardware."]),
        (
            1.26,
            ["peft: 0.1 then, 0.2 now"],
            ["⚠ Other losses than job #1", "Not the same as then: peft: 0.1 then"],
        ),
    ],
)
def test_a_run_again_says_whether_it_came_to_the_same(
    client: TestClient, database: Database, completed: Job, loss: float, differences: list[str], said: list[str]
) -> None:
    client.post(f"/jobs/{completed.id}/rerun")
    with database.read() as session:
        again = queue.get_job(session, completed.key + 1)
    summary = {"train_loss": 1.5, "eval_loss": loss, "rerun_of": 1, "rerun_differences": differences}
    advance(database, again, JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED, summary=summary)
    page = unescape(client.get(f"/jobs/{again.id}").text)
    assert all(text in page for text in said)


def test_a_receipt_names_the_hub_sources(
    client: TestClient, folder: DataFolder, completed: Job, registered: tuple[BaseModel, Dataset]
) -> None:
    assert "source</th>" not in client.get(f"/jobs/{completed.id}").text
    source = {"kind": "hub", "hub_id": "org/rows", "revision": "c0ffee"}
    dataset = {"name": "small", "sha256": "cd" * 32, "source": source}
    base = {"name": "tiny", "sha256": "ab" * 32, "hub_id": "org/model"}
    write_receipt(folder, completed, *registered, dataset=dataset, base_model=base)
    page = client.get(f"/jobs/{completed.id}").text
    assert "org/rows" in page
    assert "revision c0ffee" in page
    assert "org/model" in page


def test_a_run_that_was_stopped_and_saved_says_so_and_shows_what_it_came_to(
    client: TestClient, database: Database, folder: DataFolder, registered: tuple[BaseModel, Dataset], make_job: MakeJob
) -> None:
    summary = {"stopped_by_user": True, "steps": 4, "adapter_bytes": 2048}
    states = (JobStatus.STARTING, JobStatus.RUNNING, JobStatus.CANCELLED)
    job = advance(database, make_job(), *states, summary=summary)
    write_receipt(folder, job, *registered)
    page = client.get(f"/jobs/{job.id}").text
    assert re.search(r'status-cancelled">.*</span> stopped, saved</span>', page)
    assert f'data-title="stopped, saved · #{job.id} ' in page
    assert "at step 4" in page
    assert 'id="receipt"' in page
    assert "/rerun" not in page
    assert "stopped, saved" in client.get("/jobs").text
    assert client.get(f"/jobs/{job.id}/receipt").status_code == 200
    dropped = advance(database, make_job(), *states)
    assert "stopped, saved" not in client.get(f"/jobs/{dropped.id}").text


def test_without_a_receipt_nothing_is_run_again(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = advance(database, make_job(), JobStatus.STARTING, JobStatus.RUNNING, JobStatus.COMPLETED)
    assert "/rerun" not in client.get(f"/jobs/{job.id}").text
    assert client.get(f"/jobs/{job.id}/receipt").status_code == 409
    response = client.post(f"/jobs/{job.id}/rerun")
    assert response.status_code == 409
    assert "left no receipt" in response.text
    assert count_jobs(database) == 1


def test_what_the_workers_machine_cannot_run_is_told_beside_the_field(client: TestClient, database: Database) -> None:
    assert "note-warning" not in client.get("/jobs/new?method=qlora").text
    cannot = dict.fromkeys(("4bit", "8bit", "adamw_8bit"), "bitsandbytes is not installed")
    facts = {"pid": 1, "pid_started_at": 0.0, "boot_id": "b", "version": "0", "started_at": 0.0, "heartbeat_at": 0.0}
    with database.write() as session:
        session.add(WorkerState(**facts, capabilities={"cuda": None, "cannot": cannot}))
    page = unescape(client.get("/jobs/new?method=qlora").text)
    told = re.findall(r"⚠ (.*)\n.*data-fill='{\"(\w+)\":\"(\w+)\"}'", page)
    reason = "cannot run on the worker's machine: bitsandbytes is not installed."
    assert told == [(f"qlora {reason}", "method", "lora"), (f"paged_adamw_8bit {reason}", "optim", "adamw_torch")]
    assert "note-warning" not in client.get("/jobs/new").text


def test_an_empty_answer_is_said_to_be_one(client: TestClient, database: Database, make_job: MakeJob) -> None:
    job = make_job()
    with database.write() as session:
        log.append(session, EventKind.SAMPLE, {"prompt": "p", "text": "", "model": "base"}, job_id=job.id, step=0)
    assert "(an empty answer)" in client.get(f"/jobs/{job.id}/samples").text
