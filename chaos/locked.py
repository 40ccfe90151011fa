"""`python -m chaos.locked --seconds 60`: somebody else holds the database while a job runs. What does it cost?

A dashboard, a worker and a job that computes next to nothing. Another connection holds the write lock for so long.
Meanwhile jobs are submitted, and must be refused with when to try again; pages must be answered; the job must go on.
Afterwards each record of its spool must be in the database once, and the open stream must have brought every event.

Prints one JSON line; exits 1 where one of them is broken.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from sqlmodel import select

from app.core.jobs.models import Job
from app.core.jobs.status import ENDED
from chaos import rows
from chaos.client import Client, Follower
from chaos.evidence import Evidence
from chaos.faults import inject
from chaos.plan import Fault, Injection
from chaos.stack import Stack
from chaos.workload import prepare
from worker.spool import Record, read_spool

_SPEC: dict[str, Any] = {"base_model": "tiny", "dataset": "rows", "save_steps": 500}
_STEPS_A_SECOND = 100  # more than there are: the job outlasts the lock
_DEADLINE_SECONDS = 300.0
_POLL_SECONDS = 0.1
_CHECKS = (
    rows.jobs_complete,
    rows.attempts_are_in_order,
    rows.spools_are_taken_in,
    rows.steps_are_contiguous,
    rows.moves_are_allowed,
    rows.stream_misses_nothing,
    rows.database_is_whole,
)


class Drill:
    """One job, one lock."""

    def __init__(self, home: Path, seconds: float) -> None:
        self.stack, self.seconds = Stack(home, light=True), seconds
        prepare(self.stack.database, self.stack.folder, light=True)
        self.client = Client(self.stack.folder.server_json)
        self.follower = Follower(self.client)
        self.answers: list[httpx.Response] = []
        self.slowest_page = 0.0
        self.job_id = 0
        self.told = (0, 0)  # records in the job's spool as the lock came, and as it went

    def run(self) -> dict[str, Any]:
        """Returns the figures; `broken` says what is wrong."""
        try:
            self._run()
        finally:
            self.stack.stop()
            left_over = self.stack.left_over()
        evidence = Evidence(self.stack.folder, self.stack.database, {}, {}, {}, streamed=self.follower.ids)
        broken = [found for check in _CHECKS for found in check(evidence) if found is not None]
        return self._report([*broken, *self._compare(evidence), *self._judge_answers(), *left_over])

    def _run(self) -> None:
        self.stack.start()
        self.stack.wait_for_web()
        self.follower.start()
        spec = {**_SPEC, "max_steps": int(self.seconds * _STEPS_A_SECOND) + 1000}
        self.job_id = self.client.submit(spec, "goes on") or 0
        self._wait(lambda job: job.step > 10)
        begun = len(self._spool())
        inject(Injection(Fault.DATABASE_LOCKED, self.seconds), self.stack.home, self.stack.database, self._meanwhile)
        self.told = (begun, len(self._spool()))
        self._wait(lambda job: job.status in ENDED)
        self.follower.stop()
        self.client.submit({**_SPEC, "max_steps": 1}, "afterwards")  # what was refused works again
        self.follower.join()
        self._wait(lambda job: job.status in ENDED, last=True)

    def _meanwhile(self, seconds: float) -> None:
        """While nobody can write: look at the page of the job, and try to submit another."""
        until = time.monotonic() + seconds
        server = self.client.read_server()
        headers = {"Authorization": f"Bearer {server['token']}"}
        body = {"spec": {**_SPEC, "max_steps": 1}, "name": "refused"}
        with httpx.Client(base_url=server["url"], headers=headers, timeout=60, trust_env=False) as web:
            while time.monotonic() < until:
                began = time.monotonic()
                web.get(f"/jobs/{self.job_id}").raise_for_status()
                self.slowest_page = max(self.slowest_page, time.monotonic() - began)
                if time.monotonic() + 6 < until:  # a connection waits for five seconds
                    self.answers.append(web.post("/api/v1/jobs", json=body))
                time.sleep(_POLL_SECONDS)

    def _wait(self, wanted: Any, *, last: bool = False) -> None:
        """Until the job (the last one there is) is as wanted. Raises: TimeoutError."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while time.monotonic() < deadline:
            with self.stack.database.read() as session:
                jobs = list(session.exec(select(Job).order_by(Job.id)))  # type: ignore[arg-type]
            if wanted(jobs[-1] if last else next(job for job in jobs if job.key == self.job_id)):
                return
            time.sleep(_POLL_SECONDS)
        raise TimeoutError("the job did not get there")

    def _spool(self) -> list[Record]:
        path = self.stack.folder.attempt(self.job_id, 1) / "spool.jsonl"
        return [record for record, _ in read_spool(path, limit=10**7)]

    def _compare(self, evidence: Evidence) -> list[str]:
        """The job's metrics in the database are those of its spool."""
        told = {
            (name, record.step): value
            for record in self._spool()
            if record.kind == "metric"
            for name, value in record.data.items()
        }
        wrong = told.items() ^ evidence.metrics(self.job_id).items()
        return [f"metrics of the spool and of the database differ: {sorted(map(str, wrong))[:3]}"] if wrong else []

    def _judge_answers(self) -> list[str]:
        broken = [
            f"a submission was answered {each.status_code}: {each.text}"
            for each in self.answers
            if each.status_code != httpx.codes.SERVICE_UNAVAILABLE or "Retry-After" not in each.headers
        ]
        return broken if self.answers or self.seconds < 10 else ["nothing was submitted meanwhile"]

    def _report(self, broken: list[str]) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "records_before": self.told[0],
            "records_meanwhile": self.told[1] - self.told[0],
            "refused_with_retry_after": len(self.answers),
            "slowest_page_seconds": round(self.slowest_page, 2),
            "events": len(self.follower.ids),
            "stream_cuts": self.follower.cuts,
            "broken": broken if self.told[1] > self.told[0] else [*broken, "the job did not go on"],
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="loradeck-locked-") as home:
        result = Drill(Path(home) / "home", asked.seconds).run()
    print(json.dumps(result))
    return 1 if result["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
