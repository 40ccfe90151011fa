"""What the palette finds."""

from __future__ import annotations

from collections.abc import Callable

from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue_state import pause_queue


def _labels(client: TestClient, typed: str) -> str:
    answer = client.get("/palette", params={"q": typed})
    assert answer.status_code == 200
    return answer.text


def test_pages_jobs_datasets_models_and_actions_are_found_by_part_of_their_name(
    client: TestClient, make_job: Callable[..., Job]
) -> None:
    job = make_job("evening run")
    assert f'data-go="/jobs/{job.id}"' in _labels(client, "VENING")
    assert 'data-go="/datasets/1"' in _labels(client, "small")
    assert "base model" in _labels(client, "tiny")
    assert 'data-go="/gpu"' in _labels(client, "gpu")
    assert 'data-post="/queue/pause"' in _labels(client, "queue")


def test_a_number_that_is_no_job_finds_nothing_and_breaks_nothing(client: TestClient) -> None:
    for typed in ("#999", "9" * 400, "%", "#", "\u202eabc", "<b>"):
        assert "Nothing is called" in _labels(client, typed)


def test_a_paused_queue_can_be_resumed_from_it(client: TestClient, database: Database) -> None:
    with database.write() as session:
        pause_queue(session)
    assert 'data-post="/queue/resume"' in _labels(client, "queue")
