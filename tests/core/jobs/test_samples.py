"""What a training answered is read by prompt and step, whatever was told twice."""

from __future__ import annotations

from collections.abc import Callable

from sqlmodel import Session

from app.core.events import log
from app.core.events.types import EventKind
from app.core.jobs.models import Job
from app.core.jobs.samples import find_sampled, list_samples


def _tell(session: Session, job: Job, step: int, model: str, text: str, prompt: str = "p") -> None:
    log.append(session, EventKind.SAMPLE, {"prompt": prompt, "text": text, "model": model}, job_id=job.key, step=step)
    session.flush()


def test_answers_stand_by_prompt_and_step_and_the_newest_counts(session: Session, make_job: Callable[..., Job]) -> None:
    job = make_job()
    assert list_samples(session, job.key).steps == []
    assert find_sampled(session, job.key) == {"steps": [], "base": False}
    for step, model, text in ((0, "base", "b"), (4, "tuned", "old"), (8, "tuned", "eight"), (4, "tuned", "new")):
        _tell(session, job, step, model, text)
    _tell(session, job, 8, "tuned", "other", prompt="q")
    samples = list_samples(session, job.key)
    assert samples.answers == {"p": {0: "b", 4: "new", 8: "eight"}, "q": {8: "other"}}
    assert samples.steps == [0, 4, 8]
    assert find_sampled(session, job.key) == {"steps": [4, 8], "base": True}
