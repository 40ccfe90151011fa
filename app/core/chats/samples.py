"""Prompts that were kept as samples: the new-job form fills them in, and a training answers them as it goes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlmodel import Session, col, func, select

from app.core.chats.models import SamplePrompt
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.jobs.spec_run_fields import MOST_SAMPLE_CHARACTERS, MOST_SAMPLES


def list_samples(session: Session) -> Sequence[SamplePrompt]:
    """In the order in which they were kept."""
    return session.exec(select(SamplePrompt).order_by(col(SamplePrompt.id))).all()


def keep_sample(session: Session, text: str) -> SamplePrompt:
    """Keep a prompt; one that is kept already stays. Raises: InvalidInput, Conflict."""
    text = text.strip()
    if not text:
        raise InvalidInput("is empty")
    if len(text) > MOST_SAMPLE_CHARACTERS:
        raise InvalidInput(f"has {len(text):,} characters; a sample has at most {MOST_SAMPLE_CHARACTERS:,}")
    found = session.exec(select(SamplePrompt).where(SamplePrompt.text == text)).first()
    if found is not None:
        return found
    if session.exec(select(func.count()).select_from(SamplePrompt)).one() >= MOST_SAMPLES:
        raise Conflict(f"is one too many: {MOST_SAMPLES} samples are kept already", advice="Remove one first.")
    sample = SamplePrompt(text=text, created_at=time.time())
    session.add(sample)
    session.flush()
    return sample


def drop_sample(session: Session, sample_id: int) -> None:
    """Raises: NotFound."""
    sample = session.get(SamplePrompt, sample_id)
    if sample is None:
        raise NotFound(f"There is no sample {sample_id}.")
    session.delete(sample)
