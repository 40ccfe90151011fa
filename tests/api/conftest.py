"""What the tests of the JSON API share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.web import tailer as web_tailer
from tests.core.conftest import database, migrated_file  # noqa: F401 - fixtures

Shown = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _tailer_looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's end waits for the tailer's pause, in each test anew."""
    monkeypatch.setattr(web_tailer, "POLL_SECONDS", 0.01)


@pytest.fixture
def refused() -> Shown:
    """The body of a refusal, whose shape is held to what is promised."""

    def refused(response: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/json"
        assert set(response.json()) == {"error"}
        error: dict[str, Any] = response.json()["error"]
        optional = {"advice", "field", "faults", "state", "possible"}
        assert {"code", "message"} <= set(error) <= {"code", "message", *optional}
        assert all(isinstance(error[name], str) for name in set(error) - {"faults", "possible"})
        assert ("state" in error) == ("possible" in error)
        assert error["message"].strip()
        assert code in (None, error["code"])
        return error

    return refused
