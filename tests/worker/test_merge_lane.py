"""Merges have a lane of their own: they run beside a training, one at a time, and yield to it."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.artifacts.models import Artifact
from app.core.jobs.merges import submit_merge
from app.core.jobs.models import Job
from app.core.jobs.queue import request_cancel
from app.core.jobs.status import JobStatus, Lane
from tests.worker.conftest import ScriptedWorker
from worker import child
from worker.context import Assignment
from worker.readings import Running

MakeJob = Callable[..., Job]
Queue = Callable[[], Job]


@pytest.fixture
def queue_merge(scripted: ScriptedWorker, make_job: MakeJob) -> Queue:
    """Queue the merge of a training that has ended; its child follows a script as all do."""
    scripted.follow("complete")
    source = scripted.run_to_end(make_job())
    with scripted.database.write() as session:
        session.add(Artifact(job_id=source.key, kind="adapter", path="adapter", bytes=1, created_at=0.0))

    def queue() -> Job:
        with scripted.database.write() as session:
            return submit_merge(session, scripted.folder, source)

    return queue


def test_a_merge_runs_beside_a_training_and_one_at_a_time(
    scripted: ScriptedWorker, make_job: MakeJob, queue_merge: Queue
) -> None:
    scripted.follow("go")
    training, merge, other = make_job(), queue_merge(), queue_merge()
    scripted.run_until(lambda: all(scripted.job(job).phase == "train" for job in (training, merge)))
    assert scripted.job(other).status == JobStatus.QUEUED
    pid = scripted.attempt(training).pid or 0
    assert scripted.worker._readings.running == Running(training.key, pid), "the memory shown is the training's"
    (scripted.folder.job(merge.key) / "go").touch()
    assert scripted.run_to_end(merge).status == JobStatus.COMPLETED
    scripted.run_until(lambda: scripted.job(other).phase == "train")
    assert scripted.job(training).status == JobStatus.RUNNING


def test_a_merge_that_is_killed_too_often_leaves_nothing_half_written(
    scripted: ScriptedWorker, queue_merge: Queue
) -> None:
    scripted.follow("half")
    failed = scripted.run_to_end(merge := queue_merge())
    assert (failed.status, failed.attempts) == (JobStatus.FAILED, 3)
    folder = scripted.folder.job(merge.key)
    assert sorted(path.name for path in folder.iterdir()) == ["attempts", "train.log"]


def test_half_a_merge_goes_with_the_rescue_of_a_worker_that_died_with_it(
    scripted: ScriptedWorker, queue_merge: Queue
) -> None:
    scripted.follow("wait")
    merge = queue_merge()
    scripted.run_until(lambda: scripted.job(merge).phase == "train")
    orphan = scripted.take_over(Lane.MERGE)
    half = scripted.folder.job(merge.key) / ".merged.partial"
    half.mkdir()
    (half / "model.safetensors").write_bytes(bytes(1000))
    orphan._process.send(signal.SIGKILL)
    assert orphan._process.wait(10)
    scripted.worker.rescue()
    assert scripted.job(merge).status == JobStatus.QUEUED
    assert not half.exists()


def test_a_cancelled_merge_leaves_the_training_alone(
    scripted: ScriptedWorker, make_job: MakeJob, queue_merge: Queue
) -> None:
    scripted.follow("wait")
    training, merge = make_job(), queue_merge()
    scripted.run_until(lambda: all(scripted.job(job).phase == "train" for job in (training, merge)))
    with scripted.database.write() as session:
        request_cancel(session, scripted.job(merge))
    assert scripted.run_to_end(merge).status == JobStatus.CANCELLED
    assert scripted.job(training).status == JobStatus.RUNNING


def test_a_new_worker_adopts_a_training_and_the_merge_beside_it(
    scripted: ScriptedWorker, make_job: MakeJob, queue_merge: Queue
) -> None:
    scripted.follow("go")
    jobs = [make_job(), queue_merge()]
    scripted.run_until(lambda: all(scripted.job(job).phase == "train" for job in jobs))
    orphans = [scripted.take_over(lane) for lane in (Lane.GPU, Lane.MERGE)]
    scripted.worker.rescue()
    for job in jobs:
        (scripted.folder.job(job.key) / "go").touch()
        done = scripted.run_to_end(job)
        assert (done.status, done.attempts) == (JobStatus.COMPLETED, 1)
    assert all(orphan._process.wait(10) for orphan in orphans)


@pytest.fixture
def assigned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[int, str | None]]:
    """What a child of that kind of job has made of its own process: by how much it is nicer, and which GPUs it sees."""
    found: list[tuple[int, str | None]] = []
    niced: list[int] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(os, "nice", lambda more: niced.append(more))
    monkeypatch.setattr(child, "_send_output_to", lambda _log: None)
    monkeypatch.setattr(child, "prepare_process", lambda: None)
    monkeypatch.setattr(child, "hold_requests", lambda: None)

    def look(_assignment: Assignment) -> int:
        found.append((sum(niced), os.environ.get("CUDA_VISIBLE_DEVICES")))
        return 0

    monkeypatch.setattr(child, "run_assignment", look)

    def assign(kind: str) -> tuple[int, str | None]:
        line = Assignment(1, kind, 1, str(tmp_path), "", "", {}).to_line()
        monkeypatch.setattr("sys.stdin", io.StringIO(line))
        assert child.main() == 0
        return found[-1]

    return assign


@pytest.mark.parametrize("kind", ["merge", "export"])
def test_it_yields_the_processor_and_sees_no_gpu(kind: str, assigned: Callable[[str], tuple[int, str | None]]) -> None:
    assert assigned(kind) == (10, "")


def test_a_training_yields_nothing(assigned: Callable[[str], tuple[int, str | None]]) -> None:
    assert assigned("train") == (0, "0")
