"""Which charts a job's page draws, and from what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from app.core.jobs.models import Job
from app.core.jobs.status import ENDED, JobKind
from app.core.planning.history import predict_memory
from app.web.charts import ACCURACY_SERIES, LOSS_SERIES, REWARD_SERIES, memory_chart, metric_chart


@dataclass(frozen=True, slots=True)
class JobChart:
    """One figure: `kind` is the class in static/charts.js that draws it."""

    kind: str
    title: str
    data: dict[str, Any]


def job_charts(session: Session, job: Job) -> list[JobChart]:
    """The charts of a job. Of an ended one a chart without a point stays away, since none will come."""
    kinds: dict[str, tuple[str, tuple[str, ...]]] = {}
    if job.kind == JobKind.TRAIN:
        kinds["loss"] = ("Loss", LOSS_SERIES)
        if job.spec.get("task") == "dpo":
            kinds["rewards"] = ("Rewards", REWARD_SERIES)
            kinds["accuracy"] = ("Reward accuracy", ACCURACY_SERIES)
    charts = [JobChart(kind, title, metric_chart(session, job.key, names)) for kind, (title, names) in kinds.items()]
    charts.append(JobChart("memory", "Memory", _memory(session, job)))
    return [chart for chart in charts if job.status not in ENDED or _has_points(chart)]


def _memory(session: Session, job: Job) -> dict[str, Any]:
    """The readings, and below those of a GPU the components of the planned peak: {predicted: {name: bytes}}."""
    chart = memory_chart(session, job.key)
    predicted = predict_memory(session, job)
    return {**chart, "predicted": predicted} if predicted else chart


def _has_points(chart: JobChart) -> bool:
    if chart.kind == "memory":
        return bool(chart.data["time"])
    return any(series["step"] for series in chart.data.values())
