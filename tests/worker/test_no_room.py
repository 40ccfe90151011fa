"""While the disk is full no process is started that could not even say so."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable

import pytest

from app.core.jobs.models import Job
from app.core.jobs.status import JobStatus
from tests.worker.conftest import ScriptedWorker

Usage = namedtuple("Usage", "total used free")


def test_job_waits_in_the_queue_until_there_is_room_to_start(
    scripted: ScriptedWorker, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.follow("complete")
    job = make_job()
    with monkeypatch.context() as full:
        full.setattr("worker.artifacts.disk.shutil.disk_usage", lambda _path: Usage(10**9, 10**9, 0))
        for _round in range(3):
            scripted.worker.run_once()
        assert scripted.job(job).status == JobStatus.QUEUED
    scripted.run_until(lambda: scripted.job(job).status == JobStatus.COMPLETED)
    assert scripted.job(job).attempts == 1
