"""A worker whose children are real processes that follow a script instead of training."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.core.database import Database
from app.core.jobs.models import Attempt, Job
from app.core.jobs.queue import get_job
from app.core.jobs.status import ENDED, Lane
from app.core.paths import DataFolder
from app.core.settings import Settings
from worker.children import Children
from worker.gpu import Sampler
from worker.loop import Worker
from worker.probe import Probe
from worker.supervisor import Supervisor

SCRIPTED_CHILD = (sys.executable, "-m", "tests.worker.scripted_child")
PATIENCE_SECONDS = 20.0
CAPABILITIES = {
    "torch": "2.13.0",
    "device": "cpu",
    "device_name": None,
    "cuda": None,
    "bf16": False,
    "bitsandbytes": "0.50.2",
    "paged": False,
    "cannot": {},
}


@pytest.fixture(autouse=True)
def _no_limit_on_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of a child that a test calls leaves the tests' own memory alone."""
    monkeypatch.setattr("resource.setrlimit", lambda _resource, _limits: None)


class ScriptedWorker:
    """A worker, and what tests ask of it."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.folder = DataFolder(settings.home)
        self.database = database
        children = Children(keep_spare=False, log=self.folder.home / "spare.log", command=SCRIPTED_CHILD)
        probed = self.folder.home / "probed"
        probed.write_text("what a library prints\n" + json.dumps(CAPABILITIES) + "\n")
        probe = Probe(database, self.folder.home / "probe.log", ("cat", str(probed)))
        self.worker = Worker(settings, database, children, Sampler(self.folder.home), probe)

    def follow(self, script: str) -> None:
        """What the next children do."""
        self.folder.home.joinpath("script").write_text(script)

    def job(self, job: Job) -> Job:
        """The job as it stands now."""
        with self.database.read() as session:
            return get_job(session, job.key)

    def take_over(self, lane: Lane = Lane.GPU) -> Supervisor:
        """What the worker has in hand in the lane; it forgets about that."""
        return self.worker._supervisors.pop(lane)

    def run_to_train(self, job: Job) -> None:
        """Let the worker do its rounds until the job trains."""
        self.run_until(lambda: self.job(job).phase == "train")

    def run_to_end(self, job: Job) -> Job:
        """Let the worker do its rounds until the job has ended."""
        self.run_until(lambda: self.job(job).status in ENDED)
        return self.job(job)

    def attempt(self, job: Job, number: int = 1) -> Attempt:
        """An attempt as it is on record."""
        with self.database.read() as session:
            return session.get_one(Attempt, (job.key, number))

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Let the worker do its rounds until the condition holds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "the worker did not get there in time"
            if not self.worker.run_once():
                time.sleep(0.01)


@pytest.fixture
def scripted(settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedWorker]:
    """A started worker; what it has in hand is ended after the test."""
    monkeypatch.setattr("worker.supervisor.STOP_GRACE_SECONDS", 1.0)
    monkeypatch.setattr("worker.loop.INTERRUPT_SECONDS", 1.0)
    monkeypatch.chdir(Path(__file__).parent.parent.parent)
    scripted = ScriptedWorker(settings, database)
    scripted.worker.start()
    yield scripted
    scripted.worker.stop()
    scripted.worker.run()
