"""The JSON API under requests that nobody thought of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.fuzz import ENDLESS, PATIENT, application, run

CASES, SEED = 150, 7


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries that make the requests up
def test_made_up_requests_never_end_in_a_server_error(tmp_path: Path) -> None:
    with application(tmp_path) as app:
        statuses = run(app, CASES, SEED, ENDLESS + PATIENT)
    assert statuses.total() >= CASES / 2
    assert statuses[401] == 0, "else only the door was tested"
    assert statuses[200] > 0
