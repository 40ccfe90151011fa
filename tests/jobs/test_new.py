"""The form of a new job over HTTP: what it starts from, what it says, what it refuses."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.core.database import Database
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.jobs import queue
from app.core.jobs.models import WorkerState
from app.core.jobs.status import JobStatus
from app.core.models.models import BaseModel, ModelStatus
from tests.core.adapters.test_start import Adapter
from tests.core.adapters.test_start import adapter as adapter
from tests.jobs.steps import FORM, MakeJob, count_jobs


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


def test_demo_button_queues_the_demo_job_where_its_model_is_registered(client: TestClient, database: Database) -> None:
    response = client.post("/jobs/demo")
    assert response.status_code == 422
    assert "unknown base model" in response.text
    assert count_jobs(database) == 0


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


def test_adapters_to_start_from_are_listed_and_what_the_chosen_one_decides_is_set_and_said(
    client: TestClient, adapter: Adapter
) -> None:
    source = adapter(use_dora=True)
    assert f'<option value="{source.id}">#{source.id} a</option>' in client.get("/jobs/new").text
    asked = {"base_model": "tiny", "init_adapter": str(source.id), "r": "16", "target_modules": "q_proj"}
    page = client.get("/jobs/new", params=asked).text
    assert f'<option value="{source.id}" selected>' in page
    for name, value in (("r", "4"), ("lora_alpha", "12"), ("target_modules", "q_proj, v_proj")):
        said = page.partition(f'id="field-{name}" name="{name}" value="{value}"')[2]
        assert "readonly" in said.partition(">")[0], name
        assert "Decided by the adapter" in said.partition("</small>")[0], name
    dora = page.partition('id="field-use_dora"')[2].partition("</select>")[0]
    assert (dora.count("<option"), 'value="true" selected' in dora) == (1, True)
    assert "usually costs quality" not in page
    region = client.get("/jobs/new/targets", params={**asked, "target_modules": "q_proj, v_proj"}).text
    assert "usually costs quality" not in region
    assert "readonly" not in client.get("/jobs/new", params={**asked, "init_adapter": ""}).text


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


def test_what_the_workers_machine_cannot_run_is_told_beside_the_field(client: TestClient, database: Database) -> None:
    assert "note-warning" not in client.get("/jobs/new?method=qlora").text
    cannot = dict.fromkeys(("4bit", "8bit", "adamw_8bit"), "bitsandbytes is not installed")
    facts: dict[str, Any] = {"pid": 1, "pid_started_at": 0, "boot_id": "b", "started_at": 0, "heartbeat_at": 0}
    with database.write() as session:
        session.add(WorkerState(**facts, version="0", capabilities={"cuda": None, "cannot": cannot}))
    page = unescape(client.get("/jobs/new?method=qlora").text)
    told = re.findall(r"⚠ (.*)\n.*data-fill='{\"(\w+)\":\"(\w+)\"}'", page)
    reason = "cannot run on the worker's machine: bitsandbytes is not installed."
    assert told == [(f"qlora {reason}", "method", "lora"), (f"paged_adamw_8bit {reason}", "optim", "adamw_torch")]
    assert "note-warning" not in client.get("/jobs/new").text
