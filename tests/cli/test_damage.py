"""`loradeck serve` and `loradeck worker` on a damaged database: the one says what to do, the other does not start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.core.database import Database
from app.core.paths import DataFolder
from tests.live_server import environment_for, serve_process


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A data folder whose database has lost a page."""
    folder = DataFolder(tmp_path / "home").create()
    database = Database(f"sqlite:///{folder.home / 'loradeck.db'}")
    database.migrate(folder.backups)
    database.engine.dispose()
    content = bytearray(database.path.read_bytes())
    content[4096:8192] = b"\xa5" * 4096
    database.path.write_bytes(content)
    return folder.home


def test_the_dashboard_starts_to_say_what_to_do_and_starts_no_worker(damaged: Path) -> None:
    before = (damaged / "loradeck.db").read_bytes()
    with serve_process(damaged, "--demo", worker=True) as server:
        page = httpx.get(server.url, trust_env=False)
        assert page.status_code == 503
        assert "loradeck restore FILE --force" in page.text
    log = damaged.with_name("home.log").read_text()
    assert "It only says what to do: The database" in log
    assert not (damaged / "worker.lock").exists()
    assert (damaged / "loradeck.db").read_bytes() == before


def test_the_worker_says_why_it_does_not_start(damaged: Path) -> None:
    command = [sys.executable, "-m", "worker"]
    run = subprocess.run(command, env=environment_for(damaged), capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert "is damaged" in run.stderr
    assert "loradeck restore FILE --force" in run.stderr
    assert "Traceback" not in run.stderr
