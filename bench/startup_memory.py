"""How soon the web process answers, and how much memory it and an idle worker hold.

`python -m bench.startup_memory [--runs N]`: each run is a fresh data folder, then a second start on the same one.
Prints a table of medians, then one JSON line. Memory is the resident set (psutil's RSS) of the process and its
descendants together.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

LORADECK = Path(sys.executable).with_name("loradeck")
DEADLINE_SECONDS = 60.0
IMPORT_SECONDS = 300.0
SETTLE_SECONDS = 3.0  # a few of the once-a-second readings
PAGE_LOADS = 20

Figures = dict[str, float]


@contextmanager
def running(home: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`loradeck …` on the data folder, terminated at the end; its log is `bench.log` in the folder."""
    environment = {**os.environ, "LORADECK_HOME": str(home), "LORADECK_SPARE_CHILD": "false", "LORADECK_AUTH": "off"}
    with (home / "bench.log").open("ab") as log:
        process = subprocess.Popen([str(LORADECK), *arguments], env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def resident_mb(pid: int) -> float:
    """Resident megabytes (10^6 bytes) of the process and its descendants."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)]) / 1e6


def used_cpu_seconds(pid: int) -> float:
    """Processor time so far: what a start costs, whatever else keeps the machine busy."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(port: int, path: str) -> int:
    """The status of a GET, or 0 where nobody listens yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status
    except (ConnectionError, TimeoutError):
        return 0
    finally:
        connection.close()


def measure_web(home: Path) -> Figures:
    """Seconds until the health route answers; memory then, and after the dashboard was loaded a few times."""
    port = free_port()
    started = time.perf_counter()
    with running(home, "serve", "--no-worker", "--port", str(port)) as process:
        while get(port, "/api/v1/health") != http.HTTPStatus.OK:
            _require_alive(process, started, home)
            time.sleep(0.005)
        ready_seconds, cpu_seconds = time.perf_counter() - started, used_cpu_seconds(process.pid)
        at_start = resident_mb(process.pid)
        statuses = {get(port, "/") for _ in range(PAGE_LOADS)}
        if statuses != {http.HTTPStatus.OK}:
            raise SystemExit(f"The dashboard answered {statuses} instead of 200; see {home / 'bench.log'}.")
        return {
            "web_ready_seconds": ready_seconds,
            "web_ready_cpu_seconds": cpu_seconds,
            "web_mb_at_start": at_start,
            "web_mb_after_pages": resident_mb(process.pid),
        }


def measure_worker(home: Path) -> Figures:
    """Memory of an idle worker, without its spare child."""
    started = time.perf_counter()
    with running(home, "worker") as process:
        while b"the worker runs on" not in (home / "bench.log").read_bytes():
            _require_alive(process, started, home)
            time.sleep(0.02)
        ready_seconds = time.perf_counter() - started
        _wait_until_idle(process.pid)
        return {"worker_ready_seconds": ready_seconds, "worker_mb_idle": resident_mb(process.pid)}


def _wait_until_idle(pid: int) -> None:
    """On a fresh data folder the worker first imports the demo model, in a child."""
    deadline = time.perf_counter() + IMPORT_SECONDS
    childless_since = time.perf_counter()
    while time.perf_counter() - childless_since < SETTLE_SECONDS:
        if time.perf_counter() > deadline:
            raise SystemExit(f"The worker still has a child after {IMPORT_SECONDS:.0f} s.")
        if psutil.Process(pid).children():
            childless_since = time.perf_counter()
        time.sleep(0.1)


def _require_alive(process: subprocess.Popen[bytes], started: float, home: Path) -> None:
    if process.poll() is not None or time.perf_counter() - started > DEADLINE_SECONDS:
        log = (home / "bench.log").read_text(errors="replace")
        raise SystemExit(f"It is not ready (exit code {process.returncode}). Its log:\n{log[-4000:]}")


def run_once() -> dict[str, Figures]:
    """The figures of a first and of a second start on one fresh data folder, web and worker each in its own."""
    figures: dict[str, Figures] = {"first_start": {}, "second_start": {}}
    for measure in (measure_web, measure_worker):
        with tempfile.TemporaryDirectory(prefix="loradeck-bench-") as name:
            for start in figures.values():
                start.update(measure(Path(name)))
                (Path(name) / "bench.log").unlink()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Start-up time and idle memory of web and worker.")
    parser.add_argument("--runs", type=int, default=5)
    runs = [run_once() for _ in range(parser.parse_args().runs)]
    medians = {
        start: {name: round(statistics.median(run[start][name] for run in runs), 3) for name in runs[0][start]}
        for start in runs[0]
    }
    for start, figures in medians.items():
        for name, value in figures.items():
            print(f"{start:13} {name:22} {value:9.3f}")
    print(json.dumps({"benchmark": "startup_memory", "runs": len(runs), "median": medians}))


if __name__ == "__main__":
    main()
