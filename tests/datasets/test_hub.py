"""Pages of datasets of the hub over HTTP."""

from __future__ import annotations

import re
from html import unescape

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

from app.core.database import Database
from app.core.datasets.hub import HubReference, add_from_hub, set_facts
from app.core.datasets.models import Dataset, DatasetStatus
from app.core.datasets.store import rows_path
from app.core.jobs.models import Job
from app.core.jobs.queue import advance, claim_next, request_cancel
from app.core.jobs.status import JobStatus, Lane
from app.core.paths import DataFolder
from tests.core.datasets.test_hub import FACTS

ERROR = {"kind": "x", "message": "It has <b>two</b> splits.", "advice": "Name one."}


def _add(database: Database) -> int:
    with database.write() as session:
        return add_from_hub(session, HubReference("acme/Pairs", split="train"), columns={"chosen": "good"}).key


def _fail(database: Database) -> None:
    with database.write() as session:
        job, _ = claim_next(session, Lane.DATA) or pytest.fail("there is no import")
        advance(session, job, JobStatus.FAILED, error=ERROR)


def _jobs(database: Database) -> list[Job]:
    with database.read() as session:
        return list(session.exec(select(Job).order_by(col(Job.id))))


@pytest.mark.parametrize("htmx", [False, True])
def test_a_hub_dataset_is_registered_and_its_page_shows_the_import(
    client: TestClient, database: Database, htmx: bool
) -> None:
    data = {"hub_id": " acme/Pairs ", "split": "train", "columns": "chosen=good, rejected=bad"}
    headers = {"HX-Request": "true"} if htmx else {}
    response = client.post("/datasets/hub", data=data, headers=headers, follow_redirects=False)
    assert response.status_code == (200 if htmx else 303)
    place = response.headers["HX-Redirect" if htmx else "location"]
    (job,) = _jobs(database)
    assert place == f"/datasets/{job.dataset_id}"
    page = unescape(client.get(place).text)
    assert "from acme/Pairs, split train" in page
    assert "chosen is the column good" in page
    assert f'href="/jobs/{job.id}"' in page
    assert "Jobs may be queued on it: they wait." in page
    assert "Import again" not in page
    listed = client.get("/datasets").text
    assert f'href="/jobs/{job.id}"' in listed
    assert 'hx-get="/datasets/list"' in listed


def test_a_fault_stands_beside_its_field(client: TestClient, database: Database) -> None:
    for htmx, data, field, message in (
        (False, {"hub_id": ""}, "hub_id", "'' is not a hub id. A hub id reads owner/name."),
        (True, {"hub_id": "a/b", "split": "x" * 201}, "split", "is not a split: it is too long"),
        (True, {"hub_id": "a/b", "columns": "colour=x"}, "columns", "maps to no known field"),
        (False, {"hub_id": "a/b", "name": "small"}, "name", "is registered already. Give another name."),
        (True, {"hub_id": "a/b", "name": "7"}, "name", "is a number, as ids are"),
    ):
        headers = {"HX-Request": "true"} if htmx else {}
        response = client.post("/datasets/hub", data={"config": "kept", **data}, headers=headers)
        page = unescape(response.text)
        assert response.status_code == 422
        errors = page[page.index(f'id="errors-hub-{field}"') :]
        assert message in errors[: errors.index("</ul>")]
        assert 'value="kept"' in page
        assert ("<html" in page) is not htmx
    assert _jobs(database) == []


def test_a_failed_import_shows_why_and_its_form_imports_it_again(client: TestClient, database: Database) -> None:
    key = _add(database)
    _fail(database)
    page = client.get(f"/datasets/{key}").text
    assert "It has &lt;b&gt;two&lt;/b&gt; splits." in page
    assert "<p>Name one.</p>" in page
    assert page.count("Import again") == 1
    assert "hx-sse:connect" not in page
    values = dict(re.findall(r'<input id="hub-\w+" name="(\w+)" value="([^"]*)"', page))
    assert values == {"hub_id": "acme/Pairs", "split": "train", "config": "", "revision": "", "columns": "chosen=good",
                      "name": "pairs"}  # fmt: skip
    listed = client.get("/datasets").text
    assert "It has &lt;b&gt;two&lt;/b&gt; splits. Name one." in listed
    assert "hx-sse:connect" not in listed
    response = client.post("/datasets/hub", data={**values, "split": "test"}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, f"/datasets/{key}")
    assert [(job.dataset_id, job.spec["split"]) for job in _jobs(database)] == [(key, "train"), (key, "test")]
    page = client.get(f"/datasets/{key}").text
    assert "Name one." not in page
    assert f'href="/jobs/{_jobs(database)[1].id}"' in page


def test_a_cancelled_import_says_so(client: TestClient, database: Database) -> None:
    key = _add(database)
    with database.write() as session:
        request_cancel(session, _jobs(database)[0])
    assert "✕ its import was cancelled" in client.get(f"/datasets/{key}").text


def test_the_region_of_an_import_gives_way_to_the_rows(
    client: TestClient, database: Database, folder: DataFolder
) -> None:
    key = _add(database)
    htmx = {"HX-Request": "true"}
    region = client.get(f"/datasets/{key}", headers=htmx)
    assert region.text.startswith('<section id="dataset-import"')
    with database.write() as session:
        dataset = session.get_one(Dataset, key)
        set_facts(dataset, FACTS)
        dataset.rows = 0
        session.add(dataset)
    rows_path(folder, dataset).parent.mkdir()
    assert client.get(f"/datasets/{key}", headers=htmx).headers["HX-Redirect"] == f"/datasets/{key}"
    page = client.get(f"/datasets/{key}").text
    assert f"revision <code>{'c' * 40}</code>" in page
    assert "from owner/Pairs, split train" in page


def test_the_list_is_a_region_of_its_own(client: TestClient, database: Database) -> None:
    _add(database)
    with database.write() as session:
        assert session.exec(select(Dataset).where(Dataset.status == DatasetStatus.IMPORTING)).one().rows == 0
    region = client.get("/datasets/list").text
    assert region.startswith('<section id="dataset-list"')
    assert "<html" not in region
    row = region[region.index(">pairs<") :]
    assert 'data-label="rows">n/a<' in row[: row.index("</tr>")]
