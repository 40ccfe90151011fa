"""Tags and notes: what people write beside a job, to find it again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sqlalchemy import text
from sqlmodel import Session

from app.core.errors import Fault, InvalidInput
from app.core.jobs.models import Job

MAX_TAGS = 20
MAX_TAG_LENGTH = 40
MAX_NOTES_LENGTH = 10_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ALL_TAGS = text("SELECT DISTINCT tag.value FROM job, json_each(job.tags) AS tag WHERE job.tags != '[]' ORDER BY 1")


def split_tags(typed: str) -> list[str]:
    """Tags as they are typed: separated by commas or line breaks."""
    return [tag for tag in (each.strip() for each in re.split(r"[,\n]", typed)) if tag]


def describe(session: Session, job: Job, *, tags: Iterable[str] | None = None, notes: str | None = None) -> Job:
    """Set what is given. Raises: InvalidInput with every fault."""
    faults: list[Fault] = []
    if tags is not None:
        wanted = list(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
        faults += _tag_faults(wanted)
        job.tags = wanted
    if notes is not None:
        if len(notes) > MAX_NOTES_LENGTH:
            faults.append(Fault("notes", f"has {len(notes):,} characters; at most {MAX_NOTES_LENGTH:,} are kept"))
        job.notes = notes.replace("\r\n", "\n").strip()
    if faults:
        session.expire(job)
        raise InvalidInput(faults)
    session.add(job)
    session.flush()
    return job


def list_tags(session: Session) -> Sequence[str]:
    """Every tag that a job has."""
    return session.execute(_ALL_TAGS).scalars().all()


def _tag_faults(tags: Sequence[str]) -> list[Fault]:
    faults = [
        Fault("tags", f"{tag[:MAX_TAG_LENGTH]!r}… is longer than {MAX_TAG_LENGTH} characters")
        for tag in tags
        if len(tag) > MAX_TAG_LENGTH
    ]
    faults += [Fault("tags", f"{tag!r:.60} holds a control character") for tag in tags if _CONTROL.search(tag)]
    if len(tags) > MAX_TAGS:
        faults.append(Fault("tags", f"there are {len(tags)}; at most {MAX_TAGS} are kept"))
    return faults
