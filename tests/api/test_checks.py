"""The dataset doctor over the API: a file that is not registered, a dataset, refusals. A real child checks them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.datasets.store import list_datasets
from app.core.jobs import queue
from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from app.core.paths import DataFolder
from tests.api.conftest import Shown
from tests.data_lane import DataLane

URL = "/api/v1/datasets"
SOUND = b'{"text": "one"}\n{"text": "two"}\n{"text": "one"}\n'


def check(client: TestClient, content: bytes, name: str = "rows.jsonl", wait: float = 60, **data: Any) -> Any:
    return client.post(f"{URL}/check", files={"file": (name, content)}, data=data, params={"wait": wait})


def left_of_uploads(folder: DataFolder) -> list[Path]:
    return [*folder.home.glob("jobs/*/uploaded/*"), *folder.uploads.iterdir()]


@pytest.mark.usefixtures("data_lane")
def test_a_file_is_checked_and_nothing_of_it_stays(client: TestClient, database: Database, folder: DataFolder) -> None:
    answer = check(client, SOUND + b"{\n")
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert (report["format"], report["rows"], report["unusable"], report["duplicates"]) == ("text", 4, 1, 1)
    assert (report["tokens"], report["problems"][0]["row"], report["problems"][0]["kind"]) == (None, 4, "unreadable")
    assert client.get(f"{URL}/check/{report['job_id']}").json() == report
    with database.read() as session:
        assert [dataset.name for dataset in list_datasets(session)] == ["small"]
    assert left_of_uploads(folder) == []


@pytest.mark.usefixtures("data_lane")
def test_columns_can_be_mapped(client: TestClient, refused: Shown) -> None:
    content = b'{"question": "Hi", "answer": "Yo"}\n'
    mapped = check(client, content, column=["prompt=question", "completion=answer"])
    assert (mapped.json()["format"], mapped.json()["unusable"]) == ("prompt_completion", 0)
    error = refused(check(client, content, column=["prompt=question", "completion=reply"]), 422)
    assert (error["field"], "'reply'" in error["message"]) == ("column", True)


def test_a_dataset_is_checked_once(client: TestClient, data_lane: DataLane) -> None:
    assert client.get(f"{URL}/small/check").status_code == 404
    data_lane.paused = True
    waiting = client.post(f"{URL}/small/check", json={}, params={"wait": 0})
    assert (waiting.status_code, waiting.json()["job"]["kind"]) == (202, "check")
    assert client.get(f"{URL}/small/check").status_code == 202
    data_lane.paused = False
    report = client.post(f"{URL}/small/check", json={}, params={"wait": 60}).json()
    assert (report["rows"], report["format"], report["job_id"]) == (4, "alpaca", waiting.json()["job"]["id"])
    assert client.get(f"{URL}/small/check").json() == report


def test_what_cannot_be_asked_is_refused(client: TestClient, refused: Shown, folder: DataFolder) -> None:
    assert refused(check(client, SOUND, max_length=64), 422)["field"] == "max_length"
    assert refused(check(client, SOUND, model="tiny", max_length=1), 422)["field"] == "max_length"
    assert refused(check(client, SOUND, "rows.txt"), 422)["field"] == "file"
    refused(check(client, SOUND, model="none"), 404)
    refused(client.post(f"{URL}/none/check", json={}), 404)
    refused(client.post(f"{URL}/small/check", json={"modle": "tiny"}), 422)
    assert left_of_uploads(folder) == []


def test_only_checks_have_reports(client: TestClient, make_job: Callable[..., Job], refused: Shown) -> None:
    refused(client.get(f"{URL}/check/{make_job().id}"), 404)
    refused(client.get(f"{URL}/check/999"), 404)


def test_a_file_whose_check_never_ran_goes_with_the_next(
    client: TestClient, database: Database, folder: DataFolder
) -> None:
    first = check(client, SOUND, wait=0).json()["job"]
    assert len(left_of_uploads(folder)) == 1
    with database.write() as session:
        queue.request_cancel(session, queue.get_job(session, first["id"]))
    second = check(client, SOUND, wait=0).json()["job"]
    (left,) = left_of_uploads(folder)
    assert left == folder.job(second["id"]) / "uploaded" / "source.jsonl"


def test_a_failed_check_says_why(client: TestClient, database: Database, refused: Shown) -> None:
    job = client.post(f"{URL}/small/check", json={"model": "tiny"}, params={"wait": 0}).json()["job"]
    with database.write() as session:
        moved = queue.get_job(session, job["id"])
        for to in (JobStatus.STARTING, JobStatus.RUNNING):
            moved = queue.advance(session, moved, to)
        queue.advance(session, moved, JobStatus.FAILED, error={"kind": "model_load", "message": "No tokenizer."})
    assert refused(client.get(f"{URL}/check/{job['id']}"), 422)["faults"][0]["message"] == "No tokenizer."
    again = client.post(f"{URL}/small/check", json={"model": "tiny"}, params={"wait": 0}).json()["job"]
    assert again["id"] != job["id"]
