"""What must hold of the rows: jobs, attempts, metrics, events. A check yields None for each thing that is in order."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

from app.core.jobs.models import Attempt
from app.core.jobs.status import ENDED, TRANSITIONS, JobKind, JobStatus
from chaos.evidence import Evidence, Finding
from worker.spool import SpoolDamaged, read_spool

_OF_TIME = frozenset({"tokens_per_second"})  # metrics that depend on how fast the machine was
_CLOCK_SECONDS = 0.05


def jobs_are_kept(evidence: Evidence) -> Finding:
    there = {job.key for job in evidence.rows}
    for job_id in (*evidence.jobs, *evidence.merges):
        yield None if job_id in there else f"job {job_id} was acknowledged and is gone"
    extra = [job for job in evidence.rows if job.key not in evidence.jobs and job.key not in evidence.merges]
    for job in extra:
        known = job.name in evidence.unsure or job.kind == JobKind.IMPORT or job.kind == JobKind.MERGE
        yield None if known else f"nobody submitted job {job.id}, {job.name!r}"


def jobs_complete(evidence: Evidence) -> Finding:
    for job in evidence.rows:
        fine = job.status == JobStatus.COMPLETED or (job.kind == JobKind.IMPORT and job.status in ENDED)
        fine = fine or (job.kind == JobKind.MERGE and (job.error or {}).get("kind") == "disk_full")  # nothing is lost
        yield None if fine else f"job {job.id} ({job.name}) is {job.status}: {job.error}"


def jobs_go_on_in_time(evidence: Evidence) -> Finding:
    yield from (None for _resumed in evidence.resumed)
    yield from evidence.late


def attempts_are_in_order(evidence: Evidence) -> Finding:
    for job in evidence.rows:
        attempts = evidence.attempts_of(job)
        numbers, fences = [each.number for each in attempts], [each.fence for each in attempts]
        starts = sum(1 for event in evidence.events if event.job_id == job.id and _status(event.data) == "starting")
        fine = numbers == list(range(1, job.attempts + 1)) and fences == sorted(set(fences)) and starts == len(attempts)
        fine = fine and (not fences or fences[-1] == job.fence)
        yield (
            None
            if fine
            else (
                f"job {job.id}: attempts {numbers} with fences {fences}, {starts} claims told; the job says "
                f"{job.attempts} attempts, fence {job.fence}"
            )
        )


def one_at_a_time(evidence: Evidence) -> Finding:
    for kind in (JobKind.TRAIN, JobKind.MERGE):  # a lane each
        yield from _take_turns(evidence, {job.key for job in evidence.rows if job.kind == kind})


def _take_turns(evidence: Evidence, jobs: Collection[int]) -> Finding:
    ordered = sorted((each for each in evidence.attempts if each.job_id in jobs), key=lambda each: each.started_at)
    for before, after in pairwise(ordered):
        yield (
            None
            if _ended_before(before, after)
            else (
                f"attempt {after.number} of job {after.job_id} began before attempt {before.number} of job "
                f"{before.job_id} had ended"
            )
        )


def _ended_before(before: Attempt, after: Attempt) -> bool:
    return before.ended_at is not None and before.ended_at <= after.started_at + _CLOCK_SECONDS


def spools_are_taken_in(evidence: Evidence) -> Finding:
    for attempt in evidence.attempts:
        path = evidence.folder.attempt(attempt.job_id, attempt.number) / "spool.jsonl"
        try:
            told = sum(1 for _ in read_spool(path, limit=10**9))
        except SpoolDamaged as error:
            yield f"{path}: {error}"
            continue
        yield None if told == attempt.spool_seq else f"{path} tells {told} records; {attempt.spool_seq} are taken in"


def metrics_equal_the_twins(evidence: Evidence) -> Finding:
    for job, twin in evidence.with_twins():
        mine, theirs = evidence.metrics(job.key), evidence.metrics(twin)
        for key in sorted(mine.keys() | theirs.keys()):
            if key[0] in _OF_TIME:
                continue
            same = key in mine and key in theirs and mine[key] == theirs[key]
            yield (
                None
                if same
                else (
                    f"job {job.id}, {key[0]} at step {key[1]}: {mine.get(key, 'missing')}, of its undisturbed twin "
                    f"{theirs.get(key, 'missing')}"
                )
            )


def steps_are_contiguous(evidence: Evidence) -> Finding:
    for job in evidence.done:
        if job.kind != JobKind.TRAIN:
            continue
        steps = sorted(step for name, step in evidence.metrics(job.key) if name == "loss")
        wanted = list(range(1, int(job.spec["max_steps"]) + 1))
        yield None if steps == wanted else f"job {job.id} has losses of the steps {steps}"


def moves_are_allowed(evidence: Evidence) -> Finding:
    for job in evidence.rows:
        told = [event for event in evidence.events if event.job_id == job.id and event.kind in ("status", "finished")]
        moves = [JobStatus(_status(event.data)) for event in told if event.kind == "status"]
        wrong = [f"{a} to {b}" for a, b in pairwise(moves) if a != b and b not in TRANSITIONS[a]]
        ends = [event.kind for event in told].count("finished")
        fine = not wrong and ends == 1 and told[-1].kind == "finished" and moves[-1] == job.status
        yield None if fine else f"job {job.id} ({job.status}) moved {' '.join(moves)}, and was told to end {ends} times"


def _status(data: dict[str, object]) -> str:
    return str(data.get("status"))


def stream_misses_nothing(evidence: Evidence) -> Finding:
    streamed, newest = list(evidence.streamed), max(evidence.streamed, default=0)
    yield None if streamed == sorted(set(streamed)) else "the stream brought events twice, or out of order"
    came = set(streamed)
    for event_id in (event.key for event in evidence.events if event.key <= newest):
        yield None if event_id in came else f"the stream left out event {event_id}"


def database_is_whole(evidence: Evidence) -> Finding:
    with evidence.database.engine.connect() as connection:
        for (answer,) in connection.exec_driver_sql("PRAGMA integrity_check").all():
            yield None if answer == "ok" else str(answer)
        for row in connection.exec_driver_sql("PRAGMA foreign_key_check").all():
            yield f"a foreign key points nowhere: {tuple(row)}"
