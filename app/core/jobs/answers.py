"""Ask a job's model for one answer. Nothing is queued unless everything is right."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlmodel import Session

from app.core.artifacts.store import trained_kind
from app.core.errors import Fault, InvalidInput
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.sampling import Sampling, parse_sampling, text_faults
from app.core.jobs.status import JobKind
from app.core.jobs.submit import require_trained
from app.core.jobs.turns import turn_faults
from app.core.models.models import BaseModel

PRIORITY = 20  # someone waits for the answer


def submit_generation(
    session: Session,
    source: Job,
    prompt: str = "",
    *,
    base: bool = False,
    system: str = "",
    messages: Sequence[Any] | None = None,
    **sampling: Any,
) -> Job:
    """Queue one answer, of the tuned model or of its base, to a prompt or to a conversation of several turns.

    `sampling` are fields of `Sampling`. Raises: InvalidInput with every fault at its field, Conflict.
    """
    if messages is None:
        chosen = check_question(session, source, prompt, system, sampling)
    else:
        more = _conversation_faults(source, prompt, system, messages)
        chosen = check_question(session, source, prompt or "…", "", sampling, more)
        prompt = messages[-1]["content"]
    if not base:
        require_trained(session, source, trained_kind(source))
    job = Job(
        name=f"answer by {source.name}"[:200],
        kind=JobKind.PLAYGROUND,
        spec={
            "job": source.id,
            "prompt": prompt,
            "base": base,
            "system": system,
            **({"messages": list(messages)} if messages is not None else {}),
            **chosen.model_dump(),
        },
        base_model_id=source.base_model_id,
        source_job_id=source.id,
        priority=PRIORITY,
        created_at=time.time(),
    )
    return enqueue(session, job)


def _conversation_faults(source: Job, prompt: str, system: str, messages: Sequence[Any]) -> list[Fault]:
    faults = turn_faults(messages)
    for field, text in (("prompt", prompt), ("system", system)):
        if text:
            faults.append(Fault(field, "stands beside messages, which hold all that is said", "Give one of the two."))
    if source.spec.get("task") == "text":
        faults.append(Fault("messages", "a model trained on plain text knows no turns", "Give a prompt to go on with."))
    return faults


def check_question(
    session: Session, source: Job, prompt: str, system: str, sampling: dict[str, Any], more: Sequence[Fault] = ()
) -> Sampling:
    """How to answer. Whether a prompt fits its model is known only to the model's tokenizer, so the worker says that.

    Raises: InvalidInput with every fault at its field, `more` among them.
    """
    faults = [*text_faults(prompt, system), *more]
    if system and source.spec.get("task") == "text":
        advice = "Leave it empty, and begin the prompt with it."
        faults.append(Fault("system", "a model trained on plain text has no system prompt", advice))
    chosen = Sampling()
    try:
        chosen = parse_sampling(sampling)
    except InvalidInput as error:
        faults += error.faults
    model = session.get(BaseModel, source.base_model_id) if source.base_model_id is not None else None
    longest = model.max_length if model is not None else None
    if longest is not None and chosen.max_new_tokens >= longest:
        message = f"{chosen.max_new_tokens:,} leaves no place for the prompt: the model takes {longest:,} tokens in all"
        faults.append(Fault("max_new_tokens", message, f"Give less than {longest:,}."))
    if faults:
        raise InvalidInput(faults)
    return chosen
