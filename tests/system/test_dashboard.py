"""What the dashboard says beside the running job: who runs beside it, when the others start, how full the disk is."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from app.core import disk
from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.jobs.status import JobKind, JobStatus
from app.core.metrics.store import put_metrics


def _set(database: Database, job: Job, **fields: object) -> None:
    with database.write() as session:
        stored = get_job(session, job.key)
        for name, value in fields.items():
            setattr(stored, name, value)
        session.add(stored)


def test_an_export_beside_a_training_is_shown_and_the_next_says_when_it_starts(
    client: TestClient, database: Database, make_job: Callable[..., Job]
) -> None:
    running = {"status": JobStatus.RUNNING, "attempts": 1}
    _set(database, make_job("trains"), **running, step=3, max_steps=10, eta_seconds=600.0, phase="train")
    _set(database, make_job("exports"), **running, kind=JobKind.EXPORT)
    make_job("waits")
    make_job("waits longer")
    page = client.get("/").text
    assert 'id="running-1"' in page
    assert 'id="beside-2"' in page
    assert re.search(r"#3 waits</bdi></a>.{0,80}starts at about <time", page, re.DOTALL)
    assert " or later" in page
    assert "starts at about" in client.get("/jobs/3").text
    assert "starts at about" in client.get("/queue").text


def test_a_disk_that_is_nearly_full_is_said_with_its_numbers(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "may not be able to save" not in client.get("/").text
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _path: disk.shutil._ntuple_diskusage(100, 98, 2 * 1024**2))
    page = client.get("/").text
    assert "2.0 MiB free of 100 B" in page
    assert 'href="/artifacts"' in page


def test_before_the_first_training_it_says_what_the_box_has(client: TestClient, make_job: Callable[..., Job]) -> None:
    page = client.get("/").text
    assert "This box" in page
    assert "Python 3" in page
    make_job("first")
    assert "This box" not in client.get("/").text


def test_recent_results_have_their_curve_and_a_long_queue_is_counted(
    client: TestClient, database: Database, make_job: Callable[..., Job]
) -> None:
    done = make_job("done")
    _set(database, done, status=JobStatus.COMPLETED, attempts=1, finished_at=1.0, summary={"eval_loss": 0.5})
    with database.write() as session:
        for step in (1, 2, 3):
            put_metrics(session, done.key, step, 0.0, {"loss": 4.0 - step})
    for number in range(10):
        make_job(f"waits {number}")
    page = client.get("/").text
    assert "<polyline" in page
    assert "and 2 more" in page
