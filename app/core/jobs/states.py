"""The training states in jobs' folders, as far as anybody but a training has to know them: which there are, who goes.

Whether a state is whole to the last bit is found out by the run that goes on from it; here its files' sizes must do.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, col, select

from app.core.jobs.models import Job
from app.core.jobs.status import ENDED
from app.core.paths import DataFolder

EXTENDED_AT = "extended_at"  # in a job's summary and receipt: the steps at which its run had ended before
STATE = "state"  # below a job's folder: `step-N`, what a run goes on from
KEPT_JOBS = 20  # ended ones whose states are kept: the newest
KEPT_BYTES = 20 * 1024**3  # of them together; the newest job's are kept, however large
_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True)
class State:
    """A state that seems to be whole."""

    step: int
    bytes: int
    saved_at: float


def list_states(folder: DataFolder, job: Job) -> list[State]:
    """The job's states, by step."""
    found = (_look_at(path) for path in (folder.job(job.key) / STATE).glob("step-*"))
    return sorted((state for state in found if state is not None), key=lambda state: state.step)


def keep_states(folder: DataFolder, job: Job, steps: Collection[int | None]) -> None:
    """Remove all of the job's states but those of `steps`."""
    for path in (folder.job(job.key) / STATE).glob("*"):
        match = _STEP.fullmatch(path.name)
        if match is None or int(match[1]) not in steps:
            shutil.rmtree(path, ignore_errors=True)


def prune_states(session: Session, folder: DataFolder) -> None:
    """Remove the states of jobs that ended long ago; see KEPT_JOBS and KEPT_BYTES."""
    with_states = {int(path.parent.name): path for path in (folder.home / "jobs").glob(f"[0-9]*/{STATE}")}
    ended = select(Job.id).where(col(Job.id).in_(with_states), col(Job.status).in_(ENDED))
    newest_first = session.exec(ended.order_by(col(Job.finished_at).desc(), col(Job.id).desc())).all()
    for job_id in _beyond_limits([(job_id or 0, _bytes_below(with_states[job_id or 0])) for job_id in newest_first]):
        shutil.rmtree(with_states[job_id], ignore_errors=True)


def _beyond_limits(jobs: Sequence[tuple[int, int]]) -> list[int]:
    """Of jobs with the bytes of their states, newest first, those that are one too many or beyond the bytes."""
    total, condemned = 0, []
    for place, (job_id, size) in enumerate(jobs):
        total += size
        if place and (place >= KEPT_JOBS or total > KEPT_BYTES):
            condemned.append(job_id)
    return condemned


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _look_at(folder: Path) -> State | None:
    match = _STEP.fullmatch(folder.name)
    if match is None:
        return None
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        sizes = {folder / file["path"]: file["bytes"] for file in meta["files"]}
        whole = all(path.stat().st_size == size for path, size in sizes.items())
        return State(int(match[1]), sum(sizes.values()), meta["created_at"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError):  # as good as not there: the run that looks closer says why
        return None
