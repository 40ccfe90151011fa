"""What must hold after any number of kills, looked up in database and files alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chaos import files, rows
from chaos.evidence import Evidence, Finding


@dataclass(frozen=True, slots=True)
class Verdict:
    """An invariant: how many things were looked at, and what is wrong."""

    name: str
    looked_at: int
    broken: list[str]


def check_all(evidence: Evidence) -> list[Verdict]:
    """Every invariant."""
    return [_judge(name, check(evidence)) for name, check in INVARIANTS.items()]


def _judge(name: str, finding: Finding) -> Verdict:
    found = list(finding)
    return Verdict(name, len(found), [broken for broken in found if broken is not None])


INVARIANTS: dict[str, Callable[[Evidence], Finding]] = {
    "what was acknowledged is there": rows.jobs_are_kept,
    "every job completed": rows.jobs_complete,
    "what was hit went on within 60 s": rows.jobs_go_on_in_time,
    "attempts and fences are in order": rows.attempts_are_in_order,
    "one process at a time": rows.one_at_a_time,
    "every spool is taken in to its end": rows.spools_are_taken_in,
    "metrics equal the undisturbed twin's": rows.metrics_equal_the_twins,
    "steps are contiguous": rows.steps_are_contiguous,
    "results are bit-equal to the undisturbed twin's": files.results_equal_the_twins,
    "every published folder verifies and is on record": files.folders_verify,
    "nothing is left half-done": files.nothing_is_left_half_done,
    "states follow each other as allowed": rows.moves_are_allowed,
    "the stream missed nothing": rows.stream_misses_nothing,
    "the database is whole": rows.database_is_whole,
}
