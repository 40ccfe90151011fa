"""The run's report: every broken invariant on stderr, and one JSON line on stdout."""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlmodel import select

from app.core.jobs.models import Job
from chaos.run import Result

_SHOWN = 20  # of the broken invariants; the JSON line has them all


def print_report(result: Result) -> int:
    """Returns the exit code: 1 where an invariant is broken."""
    for line in result.broken[:_SHOWN]:
        print(f"BROKEN  {line}", file=sys.stderr)
    print(json.dumps(describe(result)), flush=True)
    return 1 if result.broken else 0


def describe(result: Result) -> dict[str, Any]:
    """The report's figures."""
    driver, tally = result.driver, result.driver.tally
    with driver.stack.database.read() as session:
        jobs = Counter(f"{job.kind} {job.status}" for job in session.exec(select(Job)))
    return {
        "benchmark": "chaos",
        "seed": result.seed,
        "kills": sum(tally.kills.values()),
        "kills_by_window": dict(sorted(tally.kills.items())),
        "windows_met": dict(sorted(tally.met.items())),
        "injected": dict(tally.injected),
        "notes": sorted(tally.notes),
        "jobs": dict(sorted(jobs.items())),
        "resumes": len(driver.recovery.seconds),
        "seconds_to_resume": _spread(driver.recovery.seconds),
        "seconds_to_web": _spread(driver.striker.web_seconds),
        "seconds_to_stop": tally.stop_seconds,
        "stream": {"events": len(driver.follower.ids), "cuts": driver.follower.cuts, "resets": driver.follower.resets},
        "invariants": {verdict.name: verdict.looked_at for verdict in result.verdicts},
        "broken": result.broken,
    }


def _spread(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {"median": round(statistics.median(seconds), 2), "longest": round(max(seconds), 2)}
