"""What a job's charts ask for: parts of series, readings, marks, and every point as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from app.core.artifacts.models import Artifact
from app.core.database import Database
from app.core.jobs import queue
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import JobStatus
from app.core.metrics.models import MemoryReading
from app.core.metrics.store import put_metrics

MakeJob = Callable[..., Job]


@pytest.fixture
def job(database: Database, make_job: MakeJob) -> Job:
    """A thousand steps, with a spike, a value that was not finite, and an eval now and then."""
    job = make_job()
    with database.write() as session:
        for step in range(1, 1001):
            loss = None if step == 500 else 50.0 if step == 333 else 1.0
            put_metrics(session, job.key, step, 100.0 + step, {"loss": loss, "tokens": 10.0 * step})
            if step % 100 == 0:
                put_metrics(session, job.key, step, 100.0 + step, {"eval_loss": 2.0})
    return job


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
def test_a_long_run_comes_in_few_buckets_with_its_spike(client: TestClient, job: Job, prefix: str) -> None:
    answer = client.get(f"{prefix}/jobs/{job.id}/series?names=loss,eval_loss,none&buckets=50")
    assert answer.status_code == 200
    loss = answer.json()["series"]["loss"]
    assert 25 <= len(loss["step"]) <= 51
    assert max(value for value in loss["max"] if value is not None) == 50.0
    assert (sum(loss["points"]), sum(loss["missing"])) == (999, 1)
    assert answer.json()["series"]["eval_loss"]["points"] == [1] * 10
    assert set(answer.json()["series"]) == {"loss", "eval_loss"}


def test_a_zoomed_part_comes_point_by_point(client: TestClient, job: Job) -> None:
    query = "names=loss&x=tokens&from=3300&to=3400&buckets=50"
    loss = client.get(f"/jobs/{job.id}/series?{query}").json()["series"]["loss"]
    assert loss["x"] == [10.0 * step for step in range(330, 341)]
    assert loss["mean"][3] == 50.0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("names=", "names"),
        ("names=loss&x=moon", "x"),
        ("names=loss&buckets=1", "buckets"),
        ("names=a&from=nan", "from"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_its_field(client: TestClient, job: Job, query: str, field: str) -> None:
    answer = client.get(f"/api/v1/jobs/{job.id}/series?{query}")
    assert answer.status_code == 422
    assert field in answer.text


def test_series_of_a_job_that_is_not_there(client: TestClient) -> None:
    for path in ("series?names=loss", "readings", "marks", "series.csv?names=loss", "readings.csv"):
        assert client.get(f"/jobs/99/{path}").status_code == 404


def test_readings_say_up_to_which_event_they_are_whole(client: TestClient, database: Database, job: Job) -> None:
    with database.write() as session:
        data = {"available": False, "devices": [], "host": {"ram_used_bytes": 7}}
        session.add(MemoryReading(job_id=job.id, time=5.0, data=data))
    readings = client.get(f"/jobs/{job.id}/readings").json()
    assert (readings["time"], readings["ram_used_bytes"], readings["vram_used_bytes"]) == ([5.0], [7], [None])
    assert readings["after"] > 0
    assert client.get(f"/jobs/{job.id}/readings?from=6").json()["time"] == []


def test_marks_tell_checkpoints_attempts_and_the_end(client: TestClient, database: Database, job: Job) -> None:
    with database.write() as session:
        stored = queue.get_job(session, job.key)
        for status in (JobStatus.STARTING, JobStatus.RUNNING):
            stored = queue.advance(session, stored, status)
        for step in (200, 400):
            session.add(
                Artifact(job_id=job.id, kind="checkpoint", path=f"c{step}", step=step, bytes=1, created_at=step)
            )
        for number in (1, 2):
            session.add(Attempt(job_id=job.id, number=number, fence=number, started_at=150.0 * number))
        error = {"kind": "out_of_memory", "message": "m", "advice": "a"}
        queue.advance(session, stored, JobStatus.FAILED, error=error)
    marks = client.get(f"/jobs/{job.id}/marks").json()["marks"]
    told = [(mark["kind"], mark["step"]) for mark in marks]
    assert told == [("checkpoint", 200), ("resume", None), ("checkpoint", 400), ("out_of_memory", 0)]


def test_the_file_holds_every_point(client: TestClient, job: Job) -> None:
    answer = client.get(f"/jobs/{job.id}/series.csv?names=loss,eval_loss")
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0] == ["step", "time", "loss", "eval_loss"]
    assert len(rows) == 1001
    assert rows[100] == ["100", "200.0", "1.0", "2.0"]
    assert (rows[333][2], rows[500][2]) == ("50.0", "")
    assert answer.headers["content-disposition"] == f'attachment; filename="loradeck-job-{job.id}-loss.csv"'


def test_the_file_of_readings_holds_every_one_of_the_jobs_device(
    client: TestClient, database: Database, job: Job
) -> None:
    with database.write() as session:
        for second in range(4321):
            devices = [{"vram_used_bytes": 1}, {"vram_used_bytes": 7 + second, "process_vram_bytes": 5}]
            data = {"available": True, "devices": devices, "host": {"ram_used_bytes": 3}}
            session.add(MemoryReading(job_id=job.id, time=100.0 + second, data=data))
        session.add(MemoryReading(job_id=job.key + 1, time=100.0, data={"devices": [], "host": {}}))
    answer = client.get(f"/jobs/{job.id}/readings.csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [float(row["time"]) for row in rows] == [100.0 + second for second in range(4321)]
    assert (rows[4320]["vram_used_bytes"], rows[0]["ram_used_bytes"], rows[0]["power_watts"]) == ("4327", "3", "")
    assert answer.headers["content-disposition"] == f'attachment; filename="loradeck-job-{job.id}-readings.csv"'
    assert f"/jobs/{job.id}/readings.csv" in client.get(f"/jobs/{job.id}").text


def test_a_name_that_looks_like_a_formula_is_no_formula(client: TestClient, database: Database, job: Job) -> None:
    with database.write() as session:
        put_metrics(session, job.key, 1, 1.0, {"=1+1": -2.0})
    answer = client.get(f"/jobs/{job.id}/series.csv", params={"names": "=1+1"})
    assert answer.text.splitlines()[:2] == ["step,time,'=1+1", "1,1.0,-2.0"]
