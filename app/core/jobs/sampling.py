"""How an answer's tokens are chosen: the one source of these fields for the playground, the API and the command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.core.errors import Fault, InvalidInput
from app.core.jobs.spec_faults import describe_faults

MOST_NEW_TOKENS = 4096
MOST_CHARACTERS = 200_000  # of a prompt or a system prompt: some fifty thousand tokens
LARGEST_SEED = 2**32 - 1


class Sampling(BaseModel):
    """Names are transformers'."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    max_new_tokens: int = Field(128, ge=1, le=MOST_NEW_TOKENS, description="Tokens of the answer at most.")
    temperature: float = Field(0.0, ge=0, le=5, description="0 always takes the likeliest token; higher is wilder.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw only from the likeliest tokens that add up to this share.")
    seed: int | None = Field(
        None, ge=0, le=LARGEST_SEED, description="The same seed draws the same answer; none draws anew each time."
    )


FIELDS = tuple(Sampling.model_fields)


def parse_sampling(values: Mapping[str, Any]) -> Sampling:
    """Validate plain values. Raises: InvalidInput with every fault at its field."""
    try:
        return Sampling.model_validate(dict(values))
    except ValidationError as error:
        raise InvalidInput(describe_faults(error.errors(), Sampling.model_fields)) from None


def text_faults(prompt: str, system: str = "") -> list[Fault]:
    """What is wrong with what is asked, before any model has read it."""
    faults = [] if prompt.strip() else [Fault("prompt", "is empty", "Write what you want to ask.")]
    for field, text in (("prompt", prompt), ("system", system)):
        if len(text) > MOST_CHARACTERS:
            advice = f"Shorten it to {MOST_CHARACTERS:,} characters or less."
            faults.append(Fault(field, f"has {len(text):,} characters", advice))
    return faults
