"""Every refused page says what to do next, and offers a way on."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from app.core.errors import Conflict


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/jobs/999", 404, "Look for it by its name or number."),
        ("GET", "/nowhere", 404, 'href="/jobs"'),
        ("GET", "/jobs/abc", 422, "job_id"),
        ("GET", "/queue/pause", 405, "Go back, and press its button."),
        ("POST", "/jobs/999/cancel", 404, "Dashboard"),
    ],
)
def test_a_refused_page_says_what_to_do(client: TestClient, method: str, path: str, status: int, said: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert said in answer.text
    assert "<nav" in answer.text


def test_a_change_from_elsewhere_gets_a_page_that_tells_nothing(client: TestClient) -> None:
    answer = client.post("/queue/pause", headers={"Origin": "http://evil.test", "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert answer.headers["content-type"].startswith("text/html")
    assert "Open the dashboard" in answer.text
    assert "<nav" not in answer.text


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (RuntimeError("secret detail"), 500, "loradeck doctor"),
        (Conflict("It has moved on."), 409, "Nothing was changed."),
        (OperationalError("x", {}, Exception("database is locked")), 503, "Load it again"),
    ],
)
def test_a_fault_of_the_server_says_that_nothing_is_half_written(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, raised: Exception, status: int, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("app.jobs.list_page.query_jobs", fail)
    quiet = TestClient(client.app, base_url="http://127.0.0.1", headers=client.headers, raise_server_exceptions=False)
    answer = quiet.get("/jobs")
    assert answer.status_code == status
    assert said in answer.text
    assert "secret detail" not in answer.text
