"""What a training's model answers to the same prompts, from its base over its checkpoints to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session

from app.core.artifacts.models import Artifact
from app.core.artifacts.store import trained_kind
from app.core.jobs.models import Job
from app.core.jobs.samples import BASE, list_samples
from app.core.jobs.status import JobKind
from app.core.metrics.store import read_series

_SHOWN = 30  # columns beside the base: the newest, and those whose checkpoints are there


@dataclass(frozen=True, slots=True)
class Moment:
    """A column: the base model at step 0, or the model after so many steps, with what was saved of it."""

    step: int
    eval_loss: float | None
    checkpoint: Artifact | None
    final: Artifact | None

    @property
    def saved(self) -> Artifact | None:
        """What can be had of it: the result rather than a checkpoint of the same step."""
        return self.final or self.checkpoint


@dataclass(frozen=True, slots=True)
class Timeline:
    """Prompts, each with its answer at every moment; None where it was not asked."""

    moments: Sequence[Moment]
    rows: Sequence[tuple[str, Sequence[str | None]]]
    left_out: int  # moments that are not shown


def describe_timeline(session: Session, job: Job, artifacts: Sequence[Artifact]) -> Timeline | None:
    """Of a training, else None."""
    if job.kind != JobKind.TRAIN:
        return None
    samples = list_samples(session, job.key)
    checkpoints = {each.step: each for each in artifacts if each.kind == "checkpoint" and each.job_id == job.id}
    finals = {each.step: each for each in artifacts if each.kind == trained_kind(job) and each.job_id == job.id}
    losses = dict(read_series(session, job.key, "eval_loss").get("eval_loss", []))
    steps = _choose(samples.steps, checkpoints)
    moments = [Moment(step, losses.get(step), checkpoints.get(step), finals.get(step)) for step in steps]
    rows = [(prompt, [answers.get(step) for step in steps]) for prompt, answers in samples.answers.items()]
    return Timeline(moments, rows, len(samples.steps) - len(set(steps) & set(samples.steps)))


def _choose(told: Sequence[int], checkpoints: Mapping[int | None, Artifact]) -> list[int]:
    """The base, the newest moments, and those of which a checkpoint is there."""
    later = [step for step in told if step != BASE]
    there = {step for step in checkpoints if step is not None}
    return [*([BASE] if BASE in told else []), *sorted({*later[-_SHOWN:], *there})]
