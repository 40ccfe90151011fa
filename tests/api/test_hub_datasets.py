"""Hub datasets over the API: registered at once, imported by a job, imported again."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

from app.core.database import Database
from app.core.datasets.hub import set_facts
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.jobs.models import Job
from tests.core.datasets.test_hub import FACTS


def _add(client: TestClient, status: int = 201, **body: Any) -> dict[str, Any]:
    response = client.post("/api/v1/datasets/hub", json={"hub_id": "owner/Pairs", **body})
    assert response.status_code == status
    answer: dict[str, Any] = response.json()
    return answer


def _fail(database: Database, dataset_id: int) -> None:
    with database.write() as session:
        dataset = session.get_one(Dataset, dataset_id)
        dataset.status, dataset.error = DatasetStatus.FAILED, "It has two splits. Name one."
        session.add(dataset)


def test_a_hub_dataset_is_there_at_once_and_says_what_it_holds_when_it_is_ready(
    client: TestClient, database: Database
) -> None:
    dataset = _add(client, split="train", columns={"chosen": "good"})
    assert (dataset["name"], dataset["status"], dataset["error"]) == ("pairs", "importing", None)
    assert dataset["source"] == {"kind": "hub", "hub_id": "owner/Pairs", "split": "train"}
    assert [dataset[field] for field in ("format", "kind", "rows", "bytes", "sha256")] == [None] * 5
    assert (dataset["columns"], dataset["recognised_by"]) == ({"chosen": "good"}, [])
    assert client.get("/api/v1/datasets/pairs/rows").json() == {"rows": [], "total": 0}
    with database.write() as session:
        stored = session.get_one(Dataset, dataset["id"])
        set_facts(stored, FACTS)
        session.add(stored)
    ready = client.get("/api/v1/datasets/pairs").json()
    assert (ready["status"], ready["rows"], ready["kind"], ready["source"]) == (
        "ready", 7, "preference", FACTS["source"],
    )  # fmt: skip
    assert ready["recognised_by"] == ["chosen", "rejected"]


def test_every_fault_of_a_reference_is_named_and_nothing_is_queued(client: TestClient, database: Database) -> None:
    error = _add(client, 422, hub_id="pairs", split="a\tb")["error"]
    assert [fault["field"] for fault in error["faults"]] == ["hub_id", "split"]
    assert _add(client, 422, columns={"colour": "x"})["error"]["field"] == "column"
    assert _add(client, 422, subset="x")["error"]["field"] == "subset"
    assert _add(client, 409, name="small")["error"]["field"] == "name"
    with database.read() as session:
        assert session.exec(select(Job)).all() == []


@pytest.mark.parametrize("again", ["/api/v1/datasets/pairs/import", "/api/v1/datasets/hub"])
def test_a_failed_import_is_repeated(client: TestClient, database: Database, again: str) -> None:
    first = _add(client)
    assert client.post("/api/v1/datasets/pairs/import").status_code == 409
    _fail(database, first["id"])
    failed = client.get("/api/v1/datasets/pairs").json()
    assert (failed["status"], failed["error"]) == ("failed", "It has two splits. Name one.")
    response = client.post(again, json={"hub_id": "owner/pairs", "split": "test"} if again.endswith("hub") else None)
    assert (response.status_code, response.json()["status"]) == (201 if again.endswith("hub") else 200, "importing")
    assert (response.json()["id"], response.json()["error"]) == (first["id"], None)
    with database.read() as session:
        jobs = session.exec(select(Job).order_by(col(Job.id))).all()
    assert [job.dataset_id for job in jobs] == [first["id"]] * 2


def test_an_uploaded_file_is_not_imported_again(client: TestClient) -> None:
    assert client.post("/api/v1/datasets/small/import").status_code == 409
    assert client.post("/api/v1/datasets/gone/import").status_code == 404
