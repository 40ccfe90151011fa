"""`python -m chaos.twin`: one training that is killed three times, beside its twin that nothing disturbs.

Prints every step's loss in both, which attempt told it, and whether the adapters are the same to the last bit. Exits 1
where anything differs.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.core.jobs.models import Attempt
from chaos.driver import Driver
from chaos.evidence import Evidence
from chaos.files import compare_folders
from chaos.plan import Strike, Target, Window
from chaos.run import gather
from chaos.stack import Stack
from chaos.workload import prepare
from worker.base_models.publish import hash_file
from worker.spool import read_spool

VARIANT = "dropout"
STEPS = 40
_STRIKES = (
    Strike(Target.WORKER, Window.INGEST, 0.1),  # the child is adopted: no loss, of which a third would be the last
    Strike(Target.CHILD, Window.PRUNE, 0.0),
    Strike(Target.CHILD, Window.FINAL, 0.0),
)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="loradeck-twin-") as folder:
        stack = Stack(Path(folder) / "home", light=False)
        prepare(stack.database, stack.folder, light=False)
        driver = Driver(stack, seed=0, say=print)
        try:
            twin, killed = _run(driver)
        finally:
            stack.left_over()
        return _print(gather(driver, []), twin, killed)


def _run(driver: Driver) -> tuple[int, int]:
    """Returns the twin's id and that of the job that was killed."""
    driver.stack.start()
    driver.stack.wait_for_web()
    work = driver.work
    work.waiting = 0  # no other jobs
    twin = work.wait(work.submit_variant(VARIANT, "undisturbed", max_steps=STEPS))
    work.twins[VARIANT] = twin
    killed = work.submit_variant(VARIANT, "killed three times", max_steps=STEPS)
    for strike in _STRIKES:
        outcome = driver.striker.strike(strike)
        print(f"SIGKILL of the {strike.target}, {strike.window}: {'done' if outcome.killed else 'it was not there'}")
        driver.settle()
    work.wait(killed)
    driver.stack.stop()
    return twin, killed or 0


def _print(evidence: Evidence, twin: int, killed: int) -> int:
    theirs, mine = evidence.metrics(twin), evidence.metrics(killed)
    told = dict(_tellers(evidence, killed))
    print(f"\n{'step':>4}  {'undisturbed':>20}  {'killed three times':>20}  told by attempt")
    for name, step in sorted(key for key in theirs | mine if key[0] == "loss"):
        pair = theirs.get((name, step)), mine.get((name, step))
        print(f"{step:>4}  {pair[0]!r:>20}  {pair[1]!r:>20}  {told.get(step, '')}{'' if pair[0] == pair[1] else '  !'}")
    losses = [{key: value for key, value in each.items() if key[0] in ("loss", "eval_loss")} for each in (theirs, mine)]
    differ = compare_folders(evidence, killed, twin, "adapter")
    for job_id in (twin, killed):
        weights = evidence.folder.job(job_id) / "adapter" / "adapter_model.safetensors"
        print(f"job {job_id}: adapter_model.safetensors, SHA-256 {hash_file(weights)}")
    print(differ or "The adapters are the same to the last bit.")
    return 0 if killed and losses[0] == losses[1] and not differ else 1


def _tellers(evidence: Evidence, job_id: int) -> Iterator[tuple[int, str]]:
    """(step, the attempts that told it, as text) of a job."""
    by_step: dict[int, list[str]] = {}
    for attempt in evidence.attempts:
        if attempt.job_id == job_id:
            for step in _steps(evidence, attempt):
                by_step.setdefault(step, []).append(str(attempt.number))
    yield from ((step, ", ".join(numbers)) for step, numbers in by_step.items())


def _steps(evidence: Evidence, attempt: Attempt) -> list[int]:
    spool = evidence.folder.attempt(attempt.job_id, attempt.number) / "spool.jsonl"
    records = (record for record, _offset in read_spool(spool, limit=10**9))
    return [record.step or 0 for record in records if record.kind == "metric" and "loss" in record.data]


if __name__ == "__main__":
    sys.exit(main())
