"""What the worker's children can do is found out once, and put on record."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app.core.database import Database
from app.core.jobs.models import WorkerState
from app.core.settings import Settings
from tests.worker.conftest import CAPABILITIES, PATIENCE_SECONDS, ScriptedWorker
from worker import probe as probing
from worker.probe import Probe


def on_record(database: Database) -> dict[str, Any] | None:
    with database.read() as session:
        return session.get_one(WorkerState, 1).capabilities


def collect(probe: Probe, database: Database) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := on_record(database)) is None:
        assert time.monotonic() < deadline, "the probe did not end in time"
        probe.collect()
        time.sleep(0.01)
    return found


@pytest.fixture
def state(database: Database) -> None:
    with database.write() as session:
        session.add(WorkerState(pid=1, pid_started_at=0, boot_id="", version="", started_at=0, heartbeat_at=0))


def test_an_idle_worker_puts_on_record_what_its_children_can_do(scripted: ScriptedWorker) -> None:
    assert on_record(scripted.database) is None
    scripted.run_until(lambda: on_record(scripted.database) is not None)
    assert on_record(scripted.database) == CAPABILITIES


@pytest.mark.usefixtures("state")
def test_a_new_worker_forgets_what_another_found(settings: Settings, database: Database) -> None:
    with database.write() as session:
        session.get_one(WorkerState, 1).capabilities = CAPABILITIES
    worker = ScriptedWorker(settings, database).worker
    worker.start()
    worker.stop()
    worker.run()
    assert on_record(database) is None


@pytest.mark.usefixtures("state")
def test_a_probe_that_dies_is_a_problem_with_its_log(database: Database, tmp_path: Path) -> None:
    script = "import os, sys; sys.stderr.write('no such driver'); sys.stderr.flush(); os.abort()"
    probe = Probe(database, tmp_path / "probe.log", (sys.executable, "-c", script))
    probe.start()
    found = collect(probe, database)
    assert found == {"problem": f"the process that measures it ended with code -6; see {tmp_path / 'probe.log'}"}
    assert "no such driver" in (tmp_path / "probe.log").read_text()


@pytest.mark.usefixtures("state")
def test_a_probe_that_hangs_is_given_up(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PATIENCE_SECONDS", 0.0)
    probe = Probe(database, tmp_path / "probe.log", ("sleep", "60"))
    probe.start()
    assert "ended with code -9" in collect(probe, database)["problem"]


@pytest.mark.usefixtures("state")
def test_it_measures_once_and_ends_with_the_worker(database: Database, tmp_path: Path) -> None:
    probe = Probe(database, tmp_path / "probe.log", ("sleep", "60"))
    probe.start()
    process = probe._process
    assert process is not None
    probe.start()
    assert probe._process is process
    probe.end()
    assert process.returncode == -9
    probe.collect()
    assert on_record(database) is None
