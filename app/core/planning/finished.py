"""What finished trainings have shown: of speed, of a dataset's rows, and of memory beside its plan."""

from __future__ import annotations

from itertools import islice
from statistics import median

from sqlmodel import Session, col, select

from app.core.jobs.models import Job
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.jobs.status import JobKind, JobStatus
from app.core.planning.calibration import Residual
from app.core.planning.schedule import Past, effective_batch
from app.core.table import MAX_ID

_LOOKED_AT = 200  # newest finished trainings
_COUNTED = 20  # newest of those that are alike


class FinishedJobs:
    """The newest finished trainings, of those with an id below `before`.

    What is found is kept, for a queue of many jobs that are alike.
    """

    def __init__(self, session: Session, before: int = MAX_ID) -> None:
        ended = select(Job).where(Job.kind == JobKind.TRAIN, Job.status == JobStatus.COMPLETED, col(Job.id) < before)
        self._jobs = session.exec(ended.order_by(col(Job.id).desc()).limit(_LOOKED_AT)).all()
        self._pasts: dict[tuple[str, str, int, int | None], Past] = {}

    def past(self, spec: TrainingSpec, model_id: int | None, dataset_id: int | None) -> Past:
        """Medians over the newest jobs that are alike: of model and method, and of model and dataset."""
        if model_id is None:
            return Past()
        key = (spec.task, spec.method, model_id, dataset_id)
        if key not in self._pasts:
            self._pasts[key] = self._find_past(*key)
        return self._pasts[key]

    def residuals(self, method: str, device: str | None) -> list[Residual]:
        """Planned and measured peaks of the newest jobs of a method on a device."""
        found = [
            each.summary["memory"] for each in self._jobs if "memory" in each.summary and each.spec["method"] == method
        ]
        of_device = [each for each in found if each.get("device") == device][:_COUNTED]
        return [Residual(each["planned"], each["measured"]) for each in of_device]

    def _find_past(self, task: str, method: str, model_id: int, dataset_id: int | None) -> Past:
        of_model = [job for job in self._jobs if job.base_model_id == model_id and job.spec.get("task") == task]
        same = [job for job in of_model if job.spec.get("method") == method]
        speeds = [job.summary["tokens_per_second"] for job in same if job.summary.get("tokens_per_second")][:_COUNTED]
        lengths = (_tokens_per_row(job) for job in of_model if dataset_id is not None and job.dataset_id == dataset_id)
        known = list(islice(filter(None, lengths), _COUNTED))
        return Past(median(speeds) if speeds else None, median(known) if known else None, len(speeds))


def _tokens_per_row(job: Job) -> float | None:
    """Of a finished job; a packed one counts packs for rows."""
    tokens, steps = job.summary.get("tokens"), job.summary.get("steps")
    if not tokens or not steps or job.spec.get("packing"):
        return None
    return float(tokens / (steps * effective_batch(parse_spec(job.spec))))
