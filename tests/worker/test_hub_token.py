"""The worker says whether its own environment has a token of the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.database import Database
from app.core.jobs.models import WorkerState
from worker.hub_token import has_own_token
from worker.presence import Presence


def test_a_token_is_found_where_the_hub_s_client_looks(tmp_path: Path) -> None:
    empty = {"HF_HOME": str(tmp_path)}
    assert not has_own_token(empty)
    assert not has_own_token({**empty, "HF_TOKEN": " "})
    assert has_own_token({**empty, "HF_TOKEN": "hf_x"})
    assert has_own_token({**empty, "HUGGING_FACE_HUB_TOKEN": "hf_x"})
    (tmp_path / "token").write_text("hf_x\n")
    assert has_own_token(empty)
    assert not has_own_token({**empty, "HF_TOKEN_PATH": str(tmp_path / "none")})


@pytest.mark.parametrize("token", ["", "hf_x"])
def test_the_worker_puts_it_on_record(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", token)
    Presence(database).enter()
    with database.read() as session:
        assert session.get_one(WorkerState, 1).hub_token is bool(token)
