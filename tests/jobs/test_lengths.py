"""Row 31: what the form says of rows that are longer than the typed length."""

from __future__ import annotations

from html import unescape

import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.datasets.models import Dataset
from app.core.jobs.models import Job
from app.core.jobs.previews import made_of
from app.core.jobs.status import JobKind, JobStatus
from app.core.models.models import BaseModel
from app.jobs.lengths import LengthNote

# 100 rows: 60 of less than 100 tokens, 30 of less than 200, 8 of less than 300, 2 of more, up to 900.
TOKENS = {
    "max_length": 250,
    "rows": 100,
    "max": 900,
    "truncated": 5,
    "histogram": {"width": 100, "counts": [60, 30, 8], "over": 2},
}


@pytest.fixture
def checked(database: Database, registered: tuple[BaseModel, Dataset]) -> None:
    model, dataset = registered
    spec = {"max_length": 250, "made_of": made_of(dataset, model)}
    with database.write() as session:
        for other in ({**spec, "made_of": "something else"}, spec):
            summary = {"tokens": TOKENS if other == spec else {**TOKENS, "rows": 7}}
            job = Job(name="check", kind=JobKind.CHECK, status=JobStatus.COMPLETED, spec=other, created_at=0.0)
            job.base_model_id, job.dataset_id, job.summary = model.id, dataset.id, summary
            session.add(job)


def _note(client: TestClient, length: str) -> str:
    asked = {"base_model": "tiny", "dataset": "small", "max_length": length}
    return unescape(client.get("/jobs/new/lengths", params=asked).text)


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize(
    ("length", "words"),
    [
        ("250", "⚠ 5.0 % of the rows are longer than 250 tokens; the longest has 900."),
        ("900", "No row is longer than 900 tokens; the longest has 900."),
        ("299", "About 2.0 % of the rows are longer than 299 tokens"),
        ("199", "About 10 % of the rows"),
        ("149", "About 25 % of the rows"),
        ("8", "About 95 % of the rows"),
    ],
)
def test_row_31_the_share_of_longer_rows_follows_the_length(client: TestClient, length: str, words: str) -> None:
    assert words in _note(client, length)
    page = unescape(client.get("/jobs/new", params={"max_length": length}).text)
    assert words in page


def test_where_nobody_has_measured_the_check_is_offered(client: TestClient) -> None:
    note = _note(client, "512")
    assert "How many rows are longer than 512 tokens is not known" in note
    assert 'href="/datasets/1#doctor"' in note
    assert "hidden" in _note(client, "x")
    assert "hidden" in client.get("/jobs/new/lengths").text


@pytest.mark.parametrize(
    ("share", "percent"), [(0.0001, "0.1"), (0.032, "3.2"), (0.41, "41"), (0.9999, "99.9"), (1, "100")]
)
def test_per_cent_are_rounded_without_lying(share: float, percent: str) -> None:
    assert LengthNote(1, 1, share).percent == percent
