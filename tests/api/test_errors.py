"""Every refusal has one shape, and no error says more than it should."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from app.core.jobs import queries
from tests.api.conftest import Shown

BIG = 10**30


REFUSALS = [
    ("GET", "/api/v1/nothing", 404, "not_found"),
    ("GET", "/api/v1/jobs/77", 404, "not_found"),
    ("GET", f"/api/v1/jobs/{BIG}", 404, "not_found"),
    ("GET", "/api/v1/jobs/-1", 404, "not_found"),
    ("GET", "/api/v1/jobs/x", 422, "invalid_input"),
    ("GET", f"/api/v1/jobs/{BIG}/metrics", 404, "not_found"),
    ("GET", f"/api/v1/jobs/{BIG}/logs", 404, "not_found"),
    ("GET", f"/api/v1/jobs/{BIG}/artifacts", 404, "not_found"),
    ("POST", f"/api/v1/jobs/{BIG}/cancel", 404, "not_found"),
    ("GET", "/api/v1/datasets/gone", 404, "not_found"),
    ("GET", f"/api/v1/datasets/{BIG}", 404, "not_found"),
    ("GET", "/api/v1/datasets/..%2f..%2fetc%2fpasswd", 404, "not_found"),
    ("GET", "/api/v1/datasets/%00", 404, "not_found"),
    ("GET", "/api/v1/datasets/%ff", 404, "not_found"),
    ("GET", "/api/v1/models/gone", 404, "not_found"),
    ("GET", f"/api/v1/models/{BIG}", 404, "not_found"),
    ("DELETE", "/api/v1/jobs", 405, "bad_request"),
    ("GET", f"/api/v1/jobs?page={BIG}", 422, "invalid_input"),
    ("GET", "/api/v1/jobs?size=0", 422, "invalid_input"),
    ("GET", "/api/v1/jobs?status=gone", 422, "invalid_input"),
    ("GET", "/api/v1/datasets/small/rows?first=0", 422, "invalid_input"),
    ("GET", "/api/v1/datasets/small/rows?count=501", 422, "invalid_input"),
]


def test_refusals(client: TestClient, refused: Shown) -> None:
    for method, path, status, code in REFUSALS:
        refused(client.request(method, path), status, code)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_json_under_another_type_is_refused(client: TestClient, refused: Shown, content_type: str) -> None:
    """Else a foreign page could send it without asking the browser's permission."""
    body = b'{"spec": {"base_model": "tiny", "dataset": "small"}}'
    refused(client.post("/api/v1/jobs", content=body, headers={"Content-Type": content_type}), 422)
    assert client.get("/api/v1/jobs").json()["total"] == 0


def test_a_broken_body_is_refused(client: TestClient, refused: Shown) -> None:
    for body in (b"", b"{", b"[]", b"5", b"\xff", b"null", b'{"spec": 5}', b"[" * 100_000):
        response = client.post("/api/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in (400, 422), body
        refused(response, response.status_code)


def test_a_busy_database_is_said_with_when_to_try_again(client: TestClient, refused: Shown) -> None:
    database = client.app.state.database  # type: ignore[attr-defined]

    def hurry(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA busy_timeout=50")

    database.engine.dispose()
    event.listen(database.engine, "connect", hurry)
    with database.write() as session:
        session.connection()  # takes the write lock
        response = client.post("/api/v1/jobs", json={"spec": {"base_model": "tiny", "dataset": "small"}})
        refused(response, 503, "busy")
        assert response.headers["retry-after"] == "2"
        assert client.get("/api/v1/jobs").status_code == 200, "reading goes on"
    assert client.post("/api/v1/jobs", json={"spec": {"base_model": "tiny", "dataset": "small"}}).status_code == 201


def test_a_full_disk_is_said_and_nothing_is_stored(client: TestClient, refused: Shown) -> None:
    database = client.app.state.database  # type: ignore[attr-defined]
    asked = {"spec": {"base_model": "tiny", "dataset": "small"}, "name": "x" * 200}

    def cramp(connection: Any, _record: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")

    database.engine.dispose()
    event.listen(database.engine, "connect", cramp)
    answers = [client.post("/api/v1/jobs", json=asked) for _ in range(30)]  # pages have some room left
    stored = sum(answer.status_code == 201 for answer in answers)
    error = refused(answers[-1], 507, "disk_full")
    assert "Make room" in error["advice"]
    assert client.get("/api/v1/jobs").json()["total"] == stored < 30, "reading goes on"
    event.remove(database.engine, "connect", cramp)
    database.engine.dispose()
    assert client.post("/api/v1/jobs", json=asked).status_code == 201


def test_a_file_for_which_the_disk_has_no_room_is_no_fault_of_the_server(
    client: TestClient, refused: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_in_vain(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", write_in_vain)
    answer = client.post("/api/v1/datasets", files={"file": ("rows.jsonl", b'{"text": "a"}\n')}, data={"name": "full"})
    refused(answer, 507, "disk_full")
    assert client.get("/api/v1/datasets/full").status_code == 404


def test_an_unexpected_error_is_logged_and_told_to_nobody(
    client: TestClient, refused: Shown, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("app.api.system.latest_reading", fail)
    assert queries.latest_reading is not fail
    quiet = TestClient(client.app, base_url="http://127.0.0.1", headers=client.headers, raise_server_exceptions=False)
    error = refused(quiet.get("/api/v1/gpu"), 500, "internal")
    assert "secret detail" not in str(error)
    assert "secret detail" in caplog.text
    token = client.headers["authorization"].removeprefix("Bearer ")
    assert token not in caplog.text
