"""The JSON API under requests that nobody thought of."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.security.fuzz import DATASET, application, run

CASES, SEED = 150, 7


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries that make the requests up
def test_made_up_requests_never_end_in_a_server_error(tmp_path: Path) -> None:
    with application(tmp_path) as app:
        statuses = run(app, CASES, SEED)
    assert statuses.total() >= CASES / 2
    assert statuses[401] == 0, "else only the door was tested"
    assert statuses[200] > 0


def test_what_waits_for_a_worker_is_not_waited_for(tmp_path: Path) -> None:
    """Else the suite could not try it."""
    with application(tmp_path) as app:
        client = TestClient(app, headers={"Authorization": f"Bearer {app.state.token}"})
        asked = client.post(f"/api/v1/datasets/{DATASET}/check", params={"wait": 60}, json={})
        uploaded = client.post("/api/v1/datasets/check", files={"file": ("rows.jsonl", b"{}")})
    assert (asked.status_code, uploaded.status_code) == (202, 202)
