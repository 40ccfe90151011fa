"""From the claim of the demo job to its first optimizer step, and its peak memory, beside a bare script.

    python -m bench.start [--model FOLDER] [--runs 3] [--steps 4]

`warm` is a spare child that waits with its imports done and the model of the last job loaded, with the rows that an
earlier job has tokenized and what it has proven of the model; `cold` is a fresh process that has none of these; `bare`
is a fresh process with peft and transformers' Trainer alone (bench.bare_job). All train the same model on the same rows
with the same settings on the CPU, and are ended after `--steps` steps. Seconds count from the hand-over of the job, or
from the start of the script.
Memory is the process' largest resident set in MB (10^6 bytes), as the kernel counts it; `cpu_seconds` are those of the
whole process, a spare's imports included.
Exits with 1 where our peak is not below the bare script's.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from app.core.datasets.store import normalise
from app.core.demo import demo_dataset_file, demo_spec
from bench.__main__ import convert_demo_model
from worker.children import Children
from worker.context import Assignment
from worker.spool import read_spool

DEADLINE_SECONDS = 600.0
IDLE_SECONDS = 1.5  # without any work, for a spare to count as ready
Figures = dict[str, float]
Steps = Callable[[], list[float]]  # when each step so far ended, in seconds since the epoch


def run_ours(model: Path, rows: Path, spec: dict[str, Any], folder: Path, *, warm: bool) -> Figures:
    """One job in a child of the worker's, the spare one where `warm`."""
    job, tokens, proofs = folder / "job", folder / "tokens", folder / "proofs"
    shutil.rmtree(job, ignore_errors=True)
    job.mkdir()
    if not warm:
        for kept in (tokens, proofs):
            shutil.rmtree(kept, ignore_errors=True)
    payload = {
        "spec": spec,
        "base_model": {"name": "bench", "path": str(model), "architecture": None},
        "proofs": str(proofs),
        "dataset": {"name": "bench", "path": str(rows), "tokens": str(tokens), "format": "messages", "sha256": None},
    }
    children = Children(keep_spare=warm, log=folder / "spare.log", likely_model=lambda: model)
    children.ready_spare()
    if warm:
        _wait_until_idle(os.getpid())
    spool = job / "spool.jsonl"
    began = time.time()
    child = children.start(Assignment(1, "train", 1, str(job), str(spool), str(job / "train.log"), payload))
    return _watch(child, began, lambda: _our_steps(spool), spec["max_steps"], job / "train.log")


def run_bare(model: Path, rows: Path, spec: dict[str, Any], folder: Path) -> Figures:
    """The bare script."""
    log = folder / "bare.log"
    began = time.time()
    with log.open("wb") as out:
        command = [sys.executable, "-m", "bench.bare_job", str(model), str(rows), json.dumps(spec)]
        script = subprocess.Popen(command, stdout=out, stderr=out)
    return _watch(script, began, lambda: _bare_steps(log), spec["max_steps"], log)


def _watch(process: subprocess.Popen[Any], began: float, steps: Steps, wanted: int, log: Path) -> Figures:
    """Wait for the steps' times, end the process, and take its figures from the kernel."""
    try:
        while len(times := steps()) < wanted:
            if process.poll() is not None or time.time() - began > DEADLINE_SECONDS:
                sys.exit(f"It did not train (exit code {process.returncode}). Its log:\n{log.read_text()[-4000:]}")
            time.sleep(0.02)
    finally:
        process.kill()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # it has been waited for
    return {
        "first_step_seconds": times[0] - began,
        "peak_mb": usage.ru_maxrss * 1024 / 1e6,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
    }


def _our_steps(spool: Path) -> list[float]:
    if not spool.exists():
        return []
    records = [record for record, _ in read_spool(spool, limit=10_000)]
    return [record.time for record in records if record.kind == "metric" and "loss" in record.data]


def _bare_steps(log: Path) -> list[float]:
    lines = log.read_text(errors="replace").splitlines(keepends=True)
    return [float(line.split()[2]) for line in lines if line.startswith("step ") and line.endswith("\n")]


def _wait_until_idle(parent: int) -> None:
    """Until the spare child has imported what it needs, which shows in its processor time standing still."""
    (spare,) = psutil.Process(parent).children()
    used, idle_since = -1.0, time.monotonic()
    while time.monotonic() - idle_since < IDLE_SECONDS or used < 1:
        now = sum(spare.cpu_times()[:2])
        if now > used:
            used, idle_since = now, time.monotonic()
        time.sleep(0.1)


def measure(model: Path, rows: Path, folder: Path, runs: int, steps: int) -> dict[str, Figures]:
    """Medians of each way, which take turns."""
    spec = demo_spec().model_dump(mode="json") | {"max_steps": steps, "eval_fraction": 0}
    figures: dict[str, list[Figures]] = {"bare": [], "cold": [], "warm": []}
    for _ in range(runs):
        figures["bare"].append(run_bare(model, rows, spec, folder))
        figures["cold"].append(run_ours(model, rows, spec, folder, warm=False))
        figures["warm"].append(run_ours(model, rows, spec, folder, warm=True))
    return {
        who: {name: round(statistics.median(each[name] for each in found), 3) for name in found[0]}
        for who, found in figures.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model; the demo's without")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), Path(name) / "rows.jsonl"
        normalise(demo_dataset_file(), rows)
        model = arguments.model or convert_demo_model(folder)
        medians = measure(model, rows, folder, arguments.runs, arguments.steps)
    for who, figures in medians.items():
        print(f"{who:5}", "  ".join(f"{name} {value:.2f}" for name, value in figures.items()))
    print(json.dumps({"benchmark": "start", "runs": arguments.runs, "steps": arguments.steps, "median": medians}))
    if max(medians[who]["peak_mb"] for who in ("cold", "warm")) >= medians["bare"]["peak_mb"]:
        sys.exit("Our job's peak memory is not below the bare script's.")


if __name__ == "__main__":
    main()
