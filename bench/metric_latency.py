"""How long a metric takes from the child's spool to the open job page of a real Chromium.

`python -m bench.metric_latency [--steps N]`: a real web process and worker on a fresh data folder; the job's child
writes metrics in place of training. A metric has arrived when the page's own handlers have dealt with its event.
Measured on a machine with nothing else to do, then with a busy process on each core, as training is. Prints p50 and p95
in milliseconds, then one JSON line. Both clocks are the machine's own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from sqlmodel import select

from app.core.database import Database
from app.core.demo import DEMO_DATASET_NAME
from app.core.jobs.models import Job
from app.core.jobs.queue import request_cancel
from app.core.jobs.spec import TrainingSpec
from app.core.jobs.submit import submit_training
from app.core.models.registry import add_model
from app.core.paths import DataFolder
from app.core.settings import Settings
from bench.metric_source import GO_FILE, START_STEP, STEPS_VARIABLE
from bench.startup_memory import free_port, get, running
from scripts.gpu_check_job import make_tiny_model

CHROMIUM_FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-gpu"]
WARM_UP_STEPS = 5  # the first events meet a page whose scripts have not run yet
DEADLINE_SECONDS = 120.0

# hx-sse announces each message once the page's handlers have had it.
LISTEN = """
window.arrivals = [];
document.addEventListener("htmx:sse:after:message", (event) => {
  const now = performance.timeOrigin + performance.now();
  if (event.detail.message.event !== "metric") return;
  const metric = JSON.parse(event.detail.message.data);
  window.arrivals.push([metric.step, now - metric.time * 1000]);
}, true);
document.addEventListener("htmx:sse:after:connection", () => { window.connected = true; }, true);
"""


@contextmanager
def metric_worker(home: Path, steps: int) -> Iterator[None]:
    """The worker whose jobs write metrics; its log is `worker.log` in the data folder."""
    environment = {**os.environ, "LORADECK_HOME": str(home), STEPS_VARIABLE: str(steps)}
    with (home / "worker.log").open("wb") as log:
        command = [sys.executable, "-m", "bench.metric_source", "worker"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that spin, so that the harness must share the cores."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def queue_job(home: Path) -> int:
    """Queue a job on a tiny model, in place of what the data folder's first start has queued."""
    make_tiny_model(home / "tiny")
    database = Database(Settings(home=home).effective_database_url)
    with database.write() as session:
        for job in session.exec(select(Job)).all():
            request_cancel(session, job)
        add_model(session, str(home / "tiny"), [home], name="tiny")
        job_id = submit_training(session, TrainingSpec(base_model="tiny", dataset=DEMO_DATASET_NAME)).key
    database.engine.dispose()
    return job_id


def measure_page(page: Page, url: str, job_folder: Path, steps: int) -> list[float]:
    """Milliseconds from spool to page for each step but the first few. Raises: SystemExit where a step never came."""
    page.add_init_script(LISTEN)
    page.goto(url)
    wait_for(page, "Boolean(window.connected)")
    job_folder.mkdir(parents=True, exist_ok=True)
    (job_folder / GO_FILE).touch()
    last = START_STEP + steps - 1
    wait_for(page, f"window.arrivals.some(([step]) => step === {last})")
    arrivals = dict(page.evaluate("window.arrivals"))
    missing = sorted(set(range(START_STEP, last + 1)) - set(arrivals))
    if missing:
        raise SystemExit(f"Steps {missing} never arrived at the page.")
    return [milliseconds for step, milliseconds in sorted(arrivals.items()) if step >= START_STEP + WARM_UP_STEPS]


def wait_for(page: Page, condition: str) -> None:
    """Poll a condition from outside: the page's content policy forbids playwright's own way of waiting."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not page.evaluate(condition):
        if time.monotonic() > deadline:
            shown = page.inner_text("main")[:1000]
            raise SystemExit(f"{page.url}: not {condition} after {DEADLINE_SECONDS:.0f} s. The page shows:\n{shown}")
        time.sleep(0.1)


def measure(steps: int, busy: int) -> list[float]:
    """One run on a fresh data folder, with `busy` spinning processes beside it."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loradeck-bench-")))
        port = free_port()
        stack.enter_context(running(home, "serve", "--no-worker", "--port", str(port)))
        deadline = time.monotonic() + DEADLINE_SECONDS
        while get(port, "/api/v1/health") != 200:
            if time.monotonic() > deadline:
                raise SystemExit((home / "bench.log").read_text()[-4000:])
            time.sleep(0.05)
        job_id = queue_job(home)
        stack.enter_context(metric_worker(home, steps))
        stack.enter_context(busy_processes(busy))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        stack.callback(browser.close)
        folder = DataFolder(home).job(job_id)
        return measure_page(browser.new_page(), f"http://127.0.0.1:{port}/jobs/{job_id}", folder, steps)


def summarise(milliseconds: list[float]) -> dict[str, float]:
    """p50, p95 and max, to a tenth of a millisecond."""
    percentiles = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return {
        "p50_ms": round(percentiles[49], 1),
        "p95_ms": round(percentiles[94], 1),
        "max_ms": round(max(milliseconds), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of a metric from the child to the browser.")
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    results = {}
    for name, busy in (("quiet", 0), ("busy", os.cpu_count() or 1)):
        results[name] = summarise(measure(steps, busy))
        print(f"{name:6} " + "  ".join(f"{key} {value:8.1f}" for key, value in results[name].items()), flush=True)
    print(json.dumps({"benchmark": "metric_latency", "steps": steps, **results}))


if __name__ == "__main__":
    main()
