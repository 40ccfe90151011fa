"""Phases of a training, alerts about its curves, and the pages of its parts."""

from __future__ import annotations

from fastapi.testclient import TestClient

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.jobs.status import JobStatus
from app.core.metrics.store import put_metrics
from app.core.paths import DataFolder
from app.jobs.progress import find_alerts, list_phases
from tests.jobs.steps import MakeJob


def _begin(database: Database, job: Job, phases: dict[str, float], **fields: object) -> None:
    with database.write() as session:
        stored = get_job(session, job.key)
        for name, value in {"status": JobStatus.RUNNING, "attempts": 1, **fields}.items():
            setattr(stored, name, value)
        session.add(stored)
        for phase, at in phases.items():
            log.append(session, EventKind.PHASE, {"phase": phase}, job_id=job.key, at=at)


def _evals(database: Database, job: Job, *losses: float | None) -> None:
    with database.write() as session:
        for step, loss in enumerate(losses, 1):
            put_metrics(session, job.key, 100 * step, 0.0, {"eval_loss": loss})


def test_phases_show_the_one_in_hand_what_is_done_and_how_long_it_took(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = make_job("runs")
    _begin(database, job, {"load": 10.0, "tokenize": 13.0, "train": 18.0}, phase="train")
    with database.read() as session:
        phases = list_phases(session, get_job(session, job.key))
    assert [(each.name, each.state) for each in phases] == [
        ("download", "skipped"), ("load", "done"), ("tokenize", "done"), ("train", "current"), ("eval", "waiting"),
        ("save", "waiting"),
    ]  # fmt: skip
    assert [each.seconds for each in phases[:4]] == [None, 3.0, 5.0, 0.0]
    assert 'aria-current="step"' in client.get("/jobs/1/overview").text


def test_a_job_that_waits_has_no_phases(database: Database, make_job: MakeJob) -> None:
    job = make_job("waits")
    with database.read() as session:
        assert list_phases(session, get_job(session, job.key)) == []


def test_an_eval_loss_that_rises_three_times_offers_to_keep_the_best_checkpoint(
    client: TestClient, database: Database, folder: DataFolder, make_job: MakeJob
) -> None:
    job = make_job("overfits")
    _begin(database, job, {})
    _evals(database, job, 3.0, 2.0, 2.1, 2.2)
    assert "rising" not in client.get("/jobs/1").text
    _evals(database, job, 3.0, 2.0, 2.1, 2.2, 2.3)
    place = folder.job(1) / "checkpoints" / "200"
    place.mkdir(parents=True)
    with database.write() as session:
        session.add(Artifact(job_id=1, kind="checkpoint", path="checkpoints/200", step=200, bytes=1, created_at=0))
    page = client.get("/jobs/1").text
    assert "has been rising for 3 evals; it was lowest at step 200 (2)" in page
    assert "Keep best: step 200" in page
    client.post("/jobs/1/checkpoints/200/keep", data={"kept": "true"})
    page = client.get("/jobs/1").text
    assert "rising" in page
    assert "Keep best" not in page


def test_an_eval_loss_that_is_no_number_is_said_with_its_step(database: Database, make_job: MakeJob) -> None:
    job = make_job("breaks")
    _begin(database, job, {})
    _evals(database, job, 3.0, None, None)
    with database.read() as session:
        alerts = find_alerts(session, get_job(session, job.key), [])
    assert ["since step 200" in alert.message for alert in alerts] == [True]


def test_each_part_has_an_address_and_a_crash_shows_its_last_words(
    client: TestClient, database: Database, make_job: MakeJob
) -> None:
    job = make_job("crashes", learning_rate=7e-4)
    error = {"kind": "crash", "message": "It died.", "advice": None, "log_tail": ["first", "<last> words"]}
    _begin(database, job, {}, status=JobStatus.FAILED, error=error)
    for part in ("logs", "config", "samples", "artifacts"):
        page = client.get(f"/jobs/1/{part}")
        assert page.status_code == 200
        assert f'href="/jobs/1/{part}" aria-current="page"' in page.text
    assert "first\n&lt;last&gt; words" in client.get("/jobs/1").text
    config = client.get("/jobs/1/config").text
    assert config.index("<code>learning_rate</code></th><td>0.0007</td>") < config.index("All ")
    assert '<code>base_model</code></th><td>tiny</td><td class="muted">none: it has to be given</td>' in config
    assert "Undefined" not in config
