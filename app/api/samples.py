"""Prompts that are kept as samples, for trainings to answer at their checkpoints."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from app.core.chats.samples import drop_sample, keep_sample, list_samples
from app.core.errors import InvalidInput
from app.web.dependencies import SessionDep, WriteSessionDep

router = APIRouter(prefix="/samples", tags=["samples"])


class SampleIn(BaseModel):
    """A prompt to keep."""

    model_config = ConfigDict(extra="forbid")

    text: str


class SampleOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    text: str
    created_at: float


@router.get("", name="api_list_samples")
def list_all(session: SessionDep) -> list[SampleOut]:
    """In the order in which they were kept."""
    return [SampleOut.model_validate(sample) for sample in list_samples(session)]


@router.post("", status_code=201, name="api_keep_sample")
def keep(body: SampleIn, session: WriteSessionDep) -> SampleOut:
    """Keep a prompt; one that is kept already stays as it is."""
    try:
        return SampleOut.model_validate(keep_sample(session, body.text))
    except InvalidInput as error:
        raise InvalidInput(error.faults[0].message, field="text") from None


@router.delete("/{sample_id}", status_code=204, name="api_drop_sample")
def drop(sample_id: int, session: WriteSessionDep) -> None:
    """Keep a prompt no longer."""
    drop_sample(session, sample_id)
