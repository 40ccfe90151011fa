"""Which charts a job's page draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session

from app.core.jobs.models import Job
from app.core.jobs.status import ENDED, JobKind
from app.core.metrics.readings import latest_job_reading
from app.core.metrics.store import list_series
from app.core.planning.history import predict_memory

# Kind (as in static/charts/kinds.js) -> title and series.
_OF_TRAINING = {
    "loss": ("Loss", ("loss", "eval_loss")),
    "rewards": ("Rewards", ("rewards_margin", "rewards_chosen", "rewards_rejected", "eval_rewards_margin")),
    "accuracy": ("Reward accuracy", ("rewards_accuracy", "eval_rewards_accuracy")),
    "learning_rate": ("Learning rate", ("learning_rate",)),
    "grad_norm": ("Gradient norm", ("grad_norm",)),
    "speed": ("Tokens per second", ("tokens_per_second",)),
}
_OF_DPO = ("rewards", "accuracy")


@dataclass(frozen=True, slots=True)
class JobChart:
    """One figure. `options` is what the chart is told beside its points."""

    kind: str
    title: str
    names: tuple[str, ...] = ()  # what its CSV file holds; of readings all
    options: dict[str, Any] = field(default_factory=dict)


def job_charts(session: Session, job: Job) -> list[JobChart]:
    """The charts of a job. Of an ended one a chart without a point stays away, since none will come."""
    ended = job.status in ENDED
    reading = latest_job_reading(session, job.key)
    charts = [*_of_training(session, job, ended=ended)] if job.kind == JobKind.TRAIN else []
    if reading is not None or not ended:
        predicted = predict_memory(session, job) if reading is None or reading["devices"] else None
        charts.insert(1, JobChart("memory", "Memory", options={"predicted": predicted} if predicted else {}))
    if reading["devices"] if reading is not None else not ended and job.kind == JobKind.TRAIN:
        charts.append(JobChart("gpu", "GPU"))
    return charts


def _of_training(session: Session, job: Job, *, ended: bool) -> list[JobChart]:
    told = set(list_series(session, job.key))
    wanted = [kind for kind in _OF_TRAINING if kind not in _OF_DPO or job.spec.get("task") == "dpo"]
    return [
        JobChart(kind, *_OF_TRAINING[kind]) for kind in wanted if not ended or told.intersection(_OF_TRAINING[kind][1])
    ]
