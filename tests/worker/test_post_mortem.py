"""A job that ran out of memory: what the worker adds to what the child could tell, if it could."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs import queue
from app.core.jobs.models import Attempt, Job
from app.core.jobs.status import JobStatus
from app.core.paths import DataFolder
from tests.worker.conftest import ScriptedWorker
from tests.worker.test_in_hand import BATCH
from worker.in_hand import FILE, InHand
from worker.post_mortem import explain_death
from worker.settle import End, settle

MakeJob = Callable[..., Job]
CHILD = {"pid": 12, "name": "python", "process_vram_bytes": 9_000, "is_child": True}
OTHER = {"pid": 7, "name": "firefox", "process_vram_bytes": 1_000, "is_child": False}


def device(index: int, mine: int | None, *processes: dict[str, Any]) -> dict[str, Any]:
    sizes = {"vram_total_bytes": 16_000, "vram_used_bytes": 15_000, "process_vram_bytes": mine}
    return {"index": index, "name": "a card", "uuid": "u", **sizes, "processes": list(processes), "power_watts": 1.0}


@pytest.fixture
def fail(database: Database, folder: DataFolder, make_job: MakeJob) -> Callable[..., dict[str, Any]]:
    """Settle a job that was in step 3, by its process's exit and its last word; returns the job's error."""

    def settled(*readings: list[dict[str, Any]], noted: bool = True, **end: Any) -> dict[str, Any]:
        killed_for_memory = end.pop("killed_for_memory", None)
        job = make_job()
        with database.write() as session:
            for status in (JobStatus.STARTING, JobStatus.RUNNING):
                job = queue.advance(session, queue.get_job(session, job.key), status, phase="train", step=2)
            attempt = Attempt(job_id=job.key, number=1, fence=1, started_at=0.0, ended_at=99.0, **end)
            home = folder.attempt(job.key, 1)
            home.mkdir(parents=True)
            if noted:
                InHand(home / FILE).take(3, BATCH)
            for devices in readings:
                log.append(session, EventKind.GPU, {"devices": devices, "host": {"cpu_percent": 1}}, job_id=job.key)
            settle(session, folder, job, attempt, End(killed_for_memory=killed_for_memory))
        with database.read() as session:
            error = queue.get_job(session, job.key).error
        assert error is not None
        return error

    return settled


def test_a_killed_childs_autopsy_holds_batch_step_phase_and_processes(fail: Callable[..., dict[str, Any]]) -> None:
    readings = [[device(0, None, OTHER), device(1, 9_000, CHILD)], [device(0, None, OTHER), device(1, None)]]
    error = fail(*readings, exit_code=-signal.SIGKILL, killed_for_memory=True)
    assert error["kind"] == "host_out_of_memory"
    assert "The host ran out of memory: the kernel killed" in error["message"]
    autopsy = error["autopsy"]
    assert (autopsy["memory"], autopsy["phase"], autopsy["step"], autopsy["time"]) == ("host", "train", 3, 99.0)
    assert (autopsy["batch"]["tokens"], autopsy["allocator"], autopsy["host"]) == (16, None, {"cpu_percent": 1})
    assert (autopsy["device"]["index"], autopsy["device"]["processes"]) == (1, [CHILD])


def test_what_the_child_told_goes_before_what_it_had_noted(fail: Callable[..., dict[str, Any]]) -> None:
    told = {"memory": "device", "reason": "full", "batch": {"step": 9}, "allocator": {"source": "cuda"}}
    outcome = {"outcome": "failed", "error": {"kind": "out_of_memory", "message": "m", "advice": "a", "autopsy": told}}
    error = fail([device(0, None, OTHER)], exit_code=1, outcome=outcome)
    assert (error["kind"], error["message"], error["advice"]) == ("out_of_memory", "m", "a")
    assert {name: error["autopsy"][name] for name in told} == told
    assert (error["autopsy"]["step"], error["autopsy"]["device"]["processes"]) == (9, [OTHER])


def test_without_a_note_or_a_reading_what_is_not_known_is_none(fail: Callable[..., dict[str, Any]]) -> None:
    autopsy = fail(noted=False, exit_code=-signal.SIGKILL)["autopsy"]
    assert (autopsy["batch"], autopsy["device"], autopsy["host"], autopsy["step"]) == (None, None, None, 2)


@pytest.mark.parametrize(
    ("code", "damage", "killed_for_memory", "kind", "text", "examined"),
    [
        (-signal.SIGKILL, None, None, "child_died", "most often the host ran out of memory", True),
        (-signal.SIGKILL, None, False, "child_died", "the kernel counts none that it killed", False),
        (-signal.SIGKILL, "The spool is damaged", True, "child_died", "The spool is damaged", False),
        (-signal.SIGPROF, None, None, "took_too_long", "took longer than it may", False),
        (-signal.SIGSEGV, None, True, "child_died", "ended by SIGSEGV", False),
        (3, None, True, "child_died", "ended with code 3", False),
    ],
)
def test_a_death_is_explained_as_far_as_it_is_known(
    code: int, damage: str | None, killed_for_memory: bool | None, kind: str, text: str, examined: bool
) -> None:
    error = explain_death(code, damage, killed_for_memory)
    assert (error["kind"], "autopsy" in error) == (kind, examined)
    assert text in error["message"]


@pytest.mark.parametrize(
    ("counts", "kind", "text"),
    [
        ([4, 5], "host_out_of_memory", "The host ran out of memory"),
        ([4, 4], "child_died", "the kernel counts none"),
        ([None, None], "child_died", "most often the host ran out of memory"),
    ],
)
def test_the_kernels_count_of_kills_while_a_child_ran_decides_what_its_death_was(
    scripted: ScriptedWorker,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
    counts: list[int | None],
    kind: str,
    text: str,
) -> None:
    monkeypatch.setattr("worker.supervisor.count_oom_kills", iter(counts).__next__)
    scripted.follow("die")
    job = make_job()
    scripted.run_until(lambda: scripted.job(job).error is not None)
    error = scripted.job(job).error or {}
    assert error["kind"] == kind
    assert text in error["message"]
    assert ("autopsy" in error) is (counts != [4, 4])
