"""The two ends of a job that only writes metrics: a real worker, and a real child with another training function.

`python -m bench.metric_source worker` runs the worker of `LORADECK_HOME`; it starts `… child` for each job.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from typing import Any

import worker.child
from app.core.database import Database
from app.core.paths import DataFolder
from app.core.settings import Settings
from worker.children import Children
from worker.context import JobContext
from worker.gpu import Sampler
from worker.lock import lock_data_folder
from worker.loop import Worker
from worker.probe import Probe

STEPS_VARIABLE = "BENCH_STEPS"
PAUSE_SECONDS = 0.1  # between steps, on average; random, so as not to run in step with a poll
GO_FILE = "go"  # in the job's folder: a browser is connected
START_STEP = 1


def write_metrics(context: JobContext) -> dict[str, Any]:
    """In place of training: metrics of one step after the other, once the browser is there."""
    steps = int(os.environ[STEPS_VARIABLE])
    context.spool.phase("train")
    while not (context.folder / GO_FILE).exists():
        time.sleep(0.05)
    pause = random.Random(0)
    for step in range(START_STEP, START_STEP + steps):
        context.spool.metrics(step, {"loss": 2 - step / steps, "learning_rate": 2e-4, "grad_norm": 1.0, "tokens": step})
        context.spool.progress(step, steps, (steps - step) * PAUSE_SECONDS)
        time.sleep(pause.uniform(0.5, 1.5) * PAUSE_SECONDS)
    return {"steps": steps}


def run_worker() -> int:
    settings = Settings()
    folder = DataFolder(settings.home).create()
    with lock_data_folder(folder):
        database = Database(settings.effective_database_url)
        command = [sys.executable, "-m", "bench.metric_source", "child"]
        children = Children(keep_spare=False, log=folder.home / "spare.log", command=command)
        probe = Probe(database, folder.home / "probe.log", ("true",))
        loop = Worker(settings, database, children, Sampler(folder.home), probe)
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())
        loop.start()
        loop.run()
    return 0


def run_child() -> int:
    worker.child.JOB_FUNCTIONS.clear()
    worker.child.JOB_FUNCTIONS["train"] = "bench.metric_source:write_metrics"
    return worker.child.main()


if __name__ == "__main__":
    sys.exit(run_child() if sys.argv[1:] == ["child"] else run_worker())
