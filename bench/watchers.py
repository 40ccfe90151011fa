"""A thousand watchers of one running job: latency, loss, queries, memory, and what they cost the training.

`python -m bench.watchers [--watchers 1000] [--windows 4] [--seconds 12]`, under three minutes: a real dashboard, a
worker and a training of a small random model on a fresh data folder. Windows with watchers and without take turns, and
a training's step is what lies between two metrics in its spool. The watchers are plain sockets in one process on this
machine, whose processor time is paid by the training too. Latency is from the spool record to the socket, of each
metric and progress at each watcher. Exits with 1 where a watcher missed an event or the tailer asked more than once a
round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from sqlmodel import col, select

from app.core.database import Database
from app.core.demo import DEMO_DATASET_NAME
from app.core.events.log import latest_id
from app.core.events.models import Event
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job, request_cancel
from app.core.jobs.spec import TrainingSpec
from app.core.jobs.submit import submit_training
from app.core.models.registry import add_model
from app.core.paths import DataFolder
from app.core.settings import Settings
from bench.startup_memory import free_port, get, running
from scripts.gpu_check_job import make_tiny_model
from worker.spool import read_spool

DEADLINE_SECONDS = 120.0
WARM_UP_STEPS = 10
SETTLE_SECONDS = 1.0
CONFIG = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6}
SPEC = {
    "max_steps": 100_000, "max_length": 128, "per_device_train_batch_size": 4, "eval_fraction": 0, "save_steps": 100_000
}  # fmt: skip


@dataclass
class Run:
    """One dashboard, one training, and what was seen of them."""

    home: Path
    port: int
    web: psutil.Process
    job_id: int
    database: Database
    windows: list[tuple[float, float, bool]] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    rounds: int = 0
    queries: int = 0
    cpu: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    events: int = 0
    missing: int = 0

    def counts(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/bench/counts", timeout=30) as response:
            counts: dict[str, float] = json.loads(response.read())
        return counts

    def ids(self, after: int) -> list[int]:
        """The job's events as the log has them."""
        with self.database.read() as session:
            query = select(Event.id).where(Event.job_id == self.job_id, col(Event.id) > after)
            return [number or 0 for number in session.exec(query.order_by(col(Event.id)))]

    def has_begun(self) -> bool:
        """Whether the training is in its stride. Raises: SystemExit where it has failed."""
        with self.database.read() as session:
            error = get_job(session, self.job_id).error
        if error is not None:
            raise SystemExit(f"The training failed: {error['message']}")
        return len(self.step_times()) >= WARM_UP_STEPS

    def step_times(self) -> list[float]:
        spool = DataFolder(self.home).attempt(self.job_id, 1) / "spool.jsonl"
        return [record.time for record, _ in read_spool(spool, limit=10**6) if record.kind == "metric"]


def window(run: Run, seconds: float, *, watched: bool) -> None:
    """Let the training go on for a while, and note what the web process did meanwhile."""
    time.sleep(SETTLE_SECONDS)
    before, began = run.counts(), time.time()
    time.sleep(seconds)
    after = run.counts()
    run.windows.append((began, time.time(), watched))
    run.cpu[watched].append((after["cpu_seconds"] - before["cpu_seconds"]) / seconds)
    if watched:
        run.rounds += int(after["rounds"] - before["rounds"])
        run.queries += int(after["queries"] - before["queries"])
        run.memory_mb.append(run.web.memory_info().rss / 1e6)


def watch(run: Run, seconds: float, watchers: int) -> None:
    """One window with watchers. Every event that was there when it ended must have reached each of them."""
    with run.database.read() as session:
        start = latest_id(session)
    token = json.loads(DataFolder(run.home).server_json.read_text())["token"]
    command = [sys.executable, "-m", "bench.crowd", *map(str, (run.port, token, run.job_id, start, watchers))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
        assert crowd.stdin is not None
        assert crowd.stdout is not None
        if crowd.stdout.readline() != "connected\n":
            raise SystemExit("The watchers could not connect.")
        window(run, seconds, watched=True)
        due = run.ids(start)
        time.sleep(SETTLE_SECONDS)
        crowd.stdin.close()
        report = json.loads(crowd.stdout.read())
    take_report(run, report, due, run.ids(start))


def take_report(run: Run, report: dict[str, Any], due: Sequence[int], logged: Sequence[int]) -> None:
    run.events += len(due)
    run.missing += max(0, len(due) - report["counts"][0])
    if not report["alike"] or report["ids"] != logged[: len(report["ids"])]:
        raise SystemExit("A watcher missed an event, or had one twice or out of order.")
    run.latencies_ms += report["latencies_ms"]


def steps_of_windows(run: Run, watched: bool) -> list[list[float]]:
    """The duration of each step that lies in a window of a kind."""
    times = run.step_times()
    inside = [
        [at for at in times if began <= at <= ended]
        for began, ended, with_watchers in run.windows
        if with_watchers is watched
    ]
    return [[later - earlier for earlier, later in pairwise(each)] for each in inside]


def seconds_per_step(run: Run, watched: bool) -> float:
    """Mean over all windows of a kind."""
    return statistics.mean(duration for each in steps_of_windows(run, watched) for duration in each)


def make_model(folder: Path) -> None:
    """A random Llama whose step takes some tenths of a second on two cores."""
    from transformers import LlamaConfig, LlamaForCausalLM

    make_tiny_model(folder)
    vocab_size = LlamaConfig.from_pretrained(folder).vocab_size
    LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **CONFIG)).save_pretrained(folder)


def queue_job(home: Path, database: Database) -> int:
    """Queue the training, in place of what the data folder's first start has queued."""
    make_model(home / "small")
    with database.write() as session:
        for job in session.exec(select(Job)).all():
            request_cancel(session, job)
        add_model(session, str(home / "small"), [home], name="small")
        spec = TrainingSpec.model_validate({"base_model": "small", "dataset": DEMO_DATASET_NAME, **SPEC})
        return submit_training(session, spec).key


def wait_until(condition: Any, what: str, home: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"Not {what} after {DEADLINE_SECONDS:.0f} s:\n{(home / 'bench.log').read_text()[-3000:]}")
        time.sleep(0.1)


@contextmanager
def counting_server(home: Path, port: int) -> Iterator[psutil.Process]:
    environment = {**psutil.Process().environ(), "LORADECK_HOME": str(home), "LORADECK_AUTH": "off"}
    command = [sys.executable, "-m", "bench.watched_server", "serve", "--no-worker", "--port", str(port)]
    with (home / "bench.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: get(port, "/api/v1/health") == 200, "ready", home)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def training() -> Iterator[Run]:
    """A job in mid-training, with a dashboard that nobody watches."""
    with ExitStack() as stack:
        home, port = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loradeck-bench-"))), free_port()
        web = stack.enter_context(counting_server(home, port))
        database = Database(Settings(home=home).effective_database_url)
        stack.callback(database.engine.dispose)
        job_id = queue_job(home, database)
        stack.enter_context(running(home, "worker"))
        run = Run(home, port, web, job_id, database)
        wait_until(run.has_begun, f"at step {WARM_UP_STEPS}", home)
        yield run
        with database.write() as session:
            request_cancel(session, get_job(session, job_id))


def summarise(run: Run, memory_before_mb: float) -> dict[str, float]:
    watched, alone = seconds_per_step(run, True), seconds_per_step(run, False)
    percentiles = statistics.quantiles(run.latencies_ms, n=1000, method="inclusive")
    return {
        "deliveries": len(run.latencies_ms),
        "p50_ms": round(percentiles[499], 1),
        "p99_ms": round(percentiles[989], 1),
        "max_ms": round(max(run.latencies_ms), 1),
        "events": run.events,
        "missing": run.missing,
        "queries_per_round": round(run.queries / run.rounds, 4),
        "memory_more_mb": round(max(run.memory_mb) - memory_before_mb, 1),
        "web_cpu_alone": round(statistics.mean(run.cpu[False]), 3),
        "web_cpu_watched": round(statistics.mean(run.cpu[True]), 3),
        "step_seconds_alone": round(alone, 4),
        "step_seconds_watched": round(watched, 4),
        "training_speed": round(alone / watched, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="A thousand watchers of one running job.")
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=4, help="of each kind")
    parser.add_argument("--seconds", type=float, default=12.0, help="of a window")
    arguments = parser.parse_args()
    with training() as run:
        memory_before_mb = run.web.memory_info().rss / 1e6
        for number in range(2 * arguments.windows):
            if number % 4 in (1, 2):  # one before the other as often as behind it
                watch(run, arguments.seconds, arguments.watchers)
            else:
                window(run, arguments.seconds, watched=False)
        results = summarise(run, memory_before_mb)
    for name, value in results.items():
        print(f"{name:22} {value:12g}")
    print(json.dumps({"benchmark": "watchers", "watchers": arguments.watchers, **results}))
    if results["missing"] or abs(run.queries - run.rounds) > arguments.windows:  # a round may lie across a window's end
        raise SystemExit(1)


if __name__ == "__main__":
    main()
