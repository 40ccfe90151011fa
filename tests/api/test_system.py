"""Health and readings."""

from __future__ import annotations

from fastapi.testclient import TestClient

from app import __version__
from app.core.boot import boot_id, uptime_seconds
from app.core.database import Database
from app.core.jobs.models import WorkerState

READING = {
    "available": False,
    "reason": "no NVML",
    "devices": [],
    "host": {"ram_total_bytes": 5, "ram_used_bytes": None},
}


def _worker(database: Database, heartbeat_at: float) -> None:
    with database.write() as session:
        session.add(
            WorkerState(pid=7, pid_started_at=0, boot_id=boot_id(), version="v", started_at=0,
                        heartbeat_at=heartbeat_at, reading=READING)
        )  # fmt: skip


def test_health_without_a_worker(client: TestClient) -> None:
    nobody = {"alive": False, "pid": None, "heartbeat_age_seconds": None, "job_id": None, "capabilities": None}
    assert client.get("/api/v1/health").json() == {"status": "ok", "version": __version__, "worker": nobody}


def test_health_with_a_worker(client: TestClient, database: Database) -> None:
    _worker(database, uptime_seconds())
    worker = client.get("/api/v1/health").json()["worker"]
    assert (worker["alive"], worker["pid"]) == (True, 7)
    assert 0 <= worker["heartbeat_age_seconds"] < 5


def test_readings_are_the_workers_own_with_null_for_what_cannot_be_read(client: TestClient, database: Database) -> None:
    _worker(database, uptime_seconds())
    assert client.get("/api/v1/gpu").json() == READING


def test_without_a_live_worker_there_is_no_reading(client: TestClient, database: Database) -> None:
    nothing = {
        "available": False,
        "reason": "The worker does not run, so nothing is read.",
        "devices": [],
        "host": None,
    }
    assert client.get("/api/v1/gpu").json() == nothing
    _worker(database, uptime_seconds() - 60)
    assert client.get("/api/v1/gpu").json() == nothing


def test_the_openapi_document_names_the_version(client: TestClient) -> None:
    document = client.get("/api/v1/openapi.json").json()
    assert document["info"]["version"] == __version__
    assert document["openapi"].startswith("3.")
