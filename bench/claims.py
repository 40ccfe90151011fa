"""Many processes claim from one queue at once: does any job go to two of them?

`python -m bench.claims [--jobs 10000] [--processes 8]`: the worker's own claim, in a transaction each, until nothing is
left. Counted is who got which job and attempt, and what the database has on record. Exits with 1 where a job was
claimed twice or by nobody. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import func
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from app.core.database import Database
from app.core.jobs.models import Attempt, Job
from app.core.jobs.queue import claim_next, enqueue
from app.core.jobs.status import JobKind

_AT_ONCE = 500
_PAUSE_SECONDS = 0.003


def fill(database: Database, jobs: int) -> None:
    """So many trainings that can start."""
    for first in range(0, jobs, _AT_ONCE):
        with database.write() as session:
            for number in range(first, min(first + _AT_ONCE, jobs)):
                enqueue(session, Job(name=f"job {number}", kind=JobKind.TRAIN, created_at=time.time()))


def claim_all(url: str) -> None:
    """What each process does: say that it is ready, wait for the word, claim until nothing is left, tell."""
    database = Database(url)
    print("ready", flush=True)
    sys.stdin.readline()
    mine, refused = [], 0
    while True:
        try:
            with database.write() as session:
                claimed = claim_next(session)
        except OperationalError:  # locked for longer than a connection waits; a worker tries again, too
            refused += 1
            continue
        if claimed is None:
            break
        mine.append([claimed[0].key, claimed[1].number])
        time.sleep(_PAUSE_SECONDS)  # who waits for the lock polls: else one process would keep it to itself
    print(json.dumps({"claims": mine, "refused": refused}))


def race(url: str, processes: int) -> tuple[list[dict[str, Any]], float]:
    """What each told, and the seconds that it took from the common start."""
    command = [sys.executable, "-m", "bench.claims", "--claim", url]
    with ExitStack() as stack:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        claimers = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(processes)]
        for claimer in claimers:
            if claimer.stdout.readline() != "ready\n":  # type: ignore[union-attr]
                raise SystemExit("A process did not start.")
        began = time.perf_counter()
        for claimer in claimers:
            claimer.stdin.write("\n")  # type: ignore[union-attr]
            claimer.stdin.flush()  # type: ignore[union-attr]
        return [json.loads(claimer.communicate()[0]) for claimer in claimers], time.perf_counter() - began


def run(home: Path, jobs: int, processes: int) -> dict[str, Any]:
    """One race for all jobs."""
    database = Database(f"sqlite:///{home / 'loradeck.db'}")
    database.migrate(home)
    fill(database, jobs)
    told, seconds = race(str(database.engine.url), processes)
    claims = [(job, attempt) for mine in told for job, attempt in mine["claims"]]
    claimed = {job for job, _ in claims}
    with database.read() as session:
        attempts = session.exec(select(func.count()).select_from(Attempt)).one()
    database.engine.dispose()
    return {
        "jobs": jobs,
        "processes": processes,
        "claimed_by_each": sorted(len(mine["claims"]) for mine in told),
        "refused": sum(mine["refused"] for mine in told),
        "double": len(claims) - len(claimed),
        "unclaimed": jobs - len(claimed),
        "attempts_on_record": attempts,
        "claims_per_second": round(jobs / seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Many processes claim from one queue.")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--claim", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.claim:
        claim_all(asked.claim)
        return
    with tempfile.TemporaryDirectory(prefix="loradeck-bench-") as home:
        seen = run(Path(home), asked.jobs, asked.processes)
    print("  ".join(f"{name} {value}" for name, value in seen.items()))
    print(json.dumps({"benchmark": "claims", **seen}))
    if seen["double"] or seen["unclaimed"] or seen["attempts_on_record"] != asked.jobs:
        sys.exit(1)


if __name__ == "__main__":
    main()
