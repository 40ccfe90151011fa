"""What every page says beside its own matter: whether the worker runs, and how far the job is that has the GPU."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from jinja2 import pass_context
from jinja2.runtime import Context
from sqlalchemy.exc import OperationalError

from app.core.database import Database
from app.core.errors import DatabaseDamaged
from app.core.jobs.models import Job, WorkerState
from app.core.jobs.queries import active_jobs, is_alive
from app.core.jobs.status import JobKind

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Frame:
    """`percent` is that of the first running job that counts its steps, None where none does."""

    worker_alive: bool
    percent: int | None = None


def percent_of(job: Job) -> int | None:
    """How much of a job's steps is done; None where it does not count any, as a chat, whose tokens are no progress."""
    if not job.max_steps or job.kind == JobKind.PLAYGROUND:
        return None
    return min(100, 100 * job.step // job.max_steps)


@pass_context
def read_frame(context: Context) -> Frame | None:
    """For templates. None where the database does not answer: the page that says so must not fail for it, too."""
    database: Database = context["request"].app.state.database
    try:
        with database.read() as session:
            worker = session.get(WorkerState, 1)
            known = (percent_of(job) for job in active_jobs(session))
            percent = next((each for each in known if each is not None), None)
            return Frame(worker is not None and is_alive(worker), percent)
    except (OperationalError, DatabaseDamaged) as error:
        logger.info("a page is shown without its frame: %s", error)
        return None
