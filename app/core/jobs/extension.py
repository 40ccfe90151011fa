"""Let a completed training go on beyond its end, with its optimizer as it was: the same job, the same curves."""

from __future__ import annotations

from sqlmodel import Session

from app.core.errors import InvalidInput
from app.core.jobs.controls import Action, refusal, require, start_again
from app.core.jobs.inputs import keep_spec
from app.core.jobs.models import Job
from app.core.jobs.spec import parse_spec
from app.core.jobs.states import EXTENDED_AT, list_states
from app.core.jobs.status import JobKind, JobStatus
from app.core.metrics.store import latest_values
from app.core.paths import DataFolder


def extend(
    session: Session, folder: DataFolder, job: Job, *, epochs: float | None = None, steps: int | None = None
) -> Job:
    """Queue the job again for so many more epochs or optimizer steps, one of the two.

    Its learning rate goes on at its place in the schedule of the longer run. What it saved stays until the longer run
    saves. Raises: Conflict, InvalidInput.
    """
    done = _last_step(folder, job)
    more = _more_steps(session, job, done, epochs, steps)
    spec = parse_spec({**job.spec, "max_steps": done + more})
    extended = [*job.summary.get(EXTENDED_AT, []), done]
    fields = {"spec": spec.model_dump(mode="json"), "max_steps": spec.max_steps, "summary": {EXTENDED_AT: extended}}
    return keep_spec(folder, start_again(session, job, done, **fields))


def _last_step(folder: DataFolder, job: Job) -> int:
    """The step of the state that the run ended with. Raises: Conflict."""
    states = list_states(folder, job)
    if job.kind == JobKind.TRAIN and job.status == JobStatus.COMPLETED and not states:
        raise refusal(
            folder,
            job,
            f"Job {job.id} cannot be extended: the training state of its end is not kept, so its optimizer's moments, "
            "its place in the data and its random states cannot be restored.",
            advice=f"Train longer from the start: clone it with more num_train_epochs (loradeck jobs clone {job.id}).",
        )
    require(folder, job, Action.EXTEND, "" if job.status == JobStatus.COMPLETED else ": only a completed training can")
    return states[-1].step


def _more_steps(session: Session, job: Job, done: int, epochs: float | None, steps: int | None) -> int:
    """Raises: InvalidInput."""
    if (epochs is None) == (steps is None):
        raise InvalidInput("Give `epochs` or `steps`, one of the two.", field="epochs")
    if steps is not None:
        if steps < 1:
            raise InvalidInput("must be at least 1", field="steps")
        return steps
    passes = latest_values(session, job.key).get("epoch")
    if not passes:
        raise InvalidInput("how many steps an epoch has is not known of this job; give `steps`", field="epochs")
    more = round((epochs or 0.0) * done / passes)
    if more < 1:
        raise InvalidInput("must come to a step at least", field="epochs")
    return more
