"""Answers that a training gave as it went: read for its page, by prompt and by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from app.core.events.models import Event
from app.core.events.types import EventKind

BASE = 0  # the step of what the base model says
_MOST = 5000


@dataclass(frozen=True, slots=True)
class Samples:
    """Answers by prompt and step; prompts in the order in which they came."""

    answers: Mapping[str, Mapping[int, str]]

    @property
    def steps(self) -> list[int]:
        """Ascending; step 0 is the base model."""
        return sorted({step for of_prompt in self.answers.values() for step in of_prompt})


def list_samples(session: Session, job_id: int) -> Samples:
    """The newest answer to each prompt at each step: a run that was interrupted may have told of a step twice."""
    answers: dict[str, dict[int, str]] = {}
    for event in reversed(_events(session, job_id)):
        data: dict[str, Any] = event.data
        step = BASE if data["model"] == "base" else (event.step or BASE)
        answers.setdefault(data["prompt"], {})[step] = data["text"]
    return Samples(answers)


def find_sampled(session: Session, job_id: int) -> dict[str, Any]:
    """{steps, base}: of which steps the trained model's answers were told, and whether the base model's were."""
    told = {(event.data["model"], event.step or BASE) for event in _events(session, job_id)}
    return {"steps": sorted(step for who, step in told if who == "tuned"), "base": ("base", BASE) in told}


def _events(session: Session, job_id: int) -> Sequence[Event]:
    """The newest first."""
    of_job = select(Event).where(Event.job_id == job_id, Event.kind == EventKind.SAMPLE.value)
    return session.exec(of_job.order_by(col(Event.id).desc()).limit(_MOST)).all()
