"""What the command does to jobs, and to the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.paths import DataFolder
from tests.cli.conftest import Command
from tests.live_server import Served
from tests.saved_states import save_states

Submitted = dict[str, Any]
Move = Callable[..., Job]


@pytest.fixture
def saved(server: Served, database: Database, submitted: Submitted) -> Callable[..., None]:
    """Leave training states in the submitted job's folder."""

    def save(*steps: int) -> None:
        with database.read() as session:
            save_states(DataFolder(server.home), get_job(session, submitted["id"]), *steps)

    return save


@pytest.fixture
def _queue_goes_on(loradeck: Command) -> Iterator[None]:
    """The server is shared: whatever happens, its queue goes on afterwards."""
    yield
    loradeck("queue", "resume")
    loradeck("queue", "on-failure", "continue")


def test_pause_and_resume(loradeck: Command, submitted: Submitted) -> None:
    paused = loradeck("jobs", "pause", submitted["id"], "--json")
    assert (paused.code, paused.json["status"], paused.json["paused"]) == (0, "queued", True)
    assert "status: paused\n" in loradeck("jobs", "show", submitted["id"]).out
    assert loradeck("jobs", "resume", submitted["id"], "--json").json["paused"] is False
    again = loradeck("jobs", "resume", submitted["id"])
    assert again.code == 1
    assert "is queued; it cannot be resumed" in again.err
    assert "Possible now: pause, move, clone, cancel." in again.err


def test_save_now(loradeck: Command, submitted: Submitted, move: Move) -> None:
    refused = loradeck("jobs", "save", submitted["id"], "--json")
    assert (refused.code, refused.json["error"]["state"]) == (1, "queued")
    move(submitted["id"], "starting", "running")
    assert loradeck("jobs", "save", submitted["id"], "--json").json["save_now_requested"] is True
    assert loradeck("jobs", "sample", submitted["id"], "--json").json["sample_now_requested"] is True


def test_resume_retry_and_extend(
    loradeck: Command, submitted: Submitted, move: Move, saved: Callable[..., None]
) -> None:
    job = submitted["id"]
    move(job, "starting", "failed")
    saved(4, 8)
    assert loradeck("jobs", "resume", job, "--json").json["step"] == 8
    move(job, "starting", "failed")
    assert loradeck("jobs", "retry", job, "--from-step", 4, "--json").json["step"] == 4
    move(job, "starting", "failed")
    unknown = loradeck("jobs", "retry", job, "--from-step", 5)
    assert (unknown.code, "error: from_step: there is no training state of step 5" in unknown.err) == (2, True)
    assert loradeck("jobs", "retry", job, "--json").json["step"] == 0
    move(job, "starting", "completed")
    extended = loradeck("jobs", "extend", job, "--steps", 2, "--json").json
    assert (extended["status"], extended["spec"]["max_steps"]) == ("queued", 10)


@pytest.mark.usefixtures("_queue_goes_on")
def test_the_queue(loradeck: Command) -> None:
    assert loradeck("queue", "pause", "--json").json["paused"] is True
    assert loradeck("queue", "on-failure", "pause", "--json").json["on_failure"] == "pause"
    assert loradeck("queue", "show").out == "paused: true\non_failure: pause\n"
    assert loradeck("queue", "resume", "--json").json == {"paused": False, "pause_reason": None, "on_failure": "pause"}
    assert loradeck("queue", "on-failure", "dance").code == 2
