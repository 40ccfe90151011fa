"""`make bench`: every benchmark in turn. Each prints a table and one JSON line; docs/benchmarks.md keeps the figures.

Ratios of things measured side by side are what counts; absolute times are those of the machine at hand.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from app.core.datasets.store import normalise
from app.core.demo import demo_dataset_file, find_demo_gguf
from app.core.settings import Settings
from worker.context import Assignment


def run(module: str, *arguments: str) -> None:
    """One benchmark in a process of its own, so that none warms up another."""
    print(f"\n== {module} {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", f"bench.{module}", *arguments], check=True)


def convert_demo_model(folder: Path) -> Path:
    """The demo model as an import job makes it (from the user's cache where it was converted before)."""
    gguf = find_demo_gguf()
    if gguf is None:
        sys.exit("The demo model's package is missing; run `make setup`.")
    target, cache = folder / "model", Settings().cache.expanduser().resolve()
    source = {"kind": "gguf", "path": str(gguf)}
    payload = {"model_id": 1, "name": "demo", "source": source, "target": str(target), "cache": str(cache)}
    spool, log = folder / "spool.jsonl", folder / "import.log"
    assignment = Assignment(1, "import", 1, str(folder), str(spool), str(log), payload)
    subprocess.run([sys.executable, "-m", "worker.child"], input=assignment.to_line(), text=True, check=True)
    return target


def main() -> None:
    run("startup_memory")
    run("metric_latency")
    run("downloads")
    run("access")
    run("first_problem")
    run("plan_time")
    run("vram_golden")
    run("watchers")
    run("stalled")
    run("stream_cuts")
    run("claims")
    run("vram_simulation")
    run("loss")
    run("merge")
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        normalise(demo_dataset_file(), rows)
        model = convert_demo_model(Path(folder))
        run("vram_cpu_steps", "--model", str(model))
        run("harness_overhead", "--model", str(model), "--rows", str(rows), "--max-length", "128")
        run("throughput", "--model", str(model))
        run("start", "--model", str(model))


if __name__ == "__main__":
    main()
