"""The playground's form: what was typed, and the question that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from app.core.chats.asking import Question
from app.core.chats.models import ChatTurn, Side
from app.core.jobs.sampling import FIELDS
from app.core.models.models import BaseModel

SIDES = {"tuned": "Tuned", "base": "Base", "both": "Both, side by side"}
_USUAL = {"max_new_tokens": "256", "temperature": "0.7", "top_p": "0.9", "seed": "42"}


@dataclass(frozen=True, slots=True)
class Asked:
    """Every field as text."""

    prompt: str
    sides: str
    system: str
    sampling: Mapping[str, str]
    device: str = ""

    @classmethod
    def of(cls, typed: Mapping[str, str]) -> Self:
        """What the form posted."""
        return cls(
            prompt=typed.get("prompt", ""),
            sides=typed.get("sides", "tuned"),
            system=typed.get("system", ""),
            sampling={name: typed.get(name, "").strip() for name in FIELDS},
            device=typed.get("device", ""),
        )

    def to_question(self) -> Question:
        """What is left empty has its usual value; no seed is none."""
        sides = (Side.BASE, Side.TUNED) if self.sides == "both" else (self.sides,)
        sampling = {name: value for name, value in self.sampling.items() if value}
        return Question(self.prompt, sides, self.system, sampling)


def typed_before(turns: Sequence[ChatTurn], model: BaseModel | None, *, tuned: bool) -> Asked:
    """The form for the next question: as the last one was asked, else as is usual."""
    if not turns:
        usual = dict(_USUAL)
        if model is not None and model.max_length is not None and model.max_length <= int(usual["max_new_tokens"]):
            usual["max_new_tokens"] = str(max(1, model.max_length // 2))
        return Asked("", "both" if tuned else "base", "", usual)
    last = turns[-1]
    return Asked("", "both" if len(last.sides) > 1 else last.sides[0], last.system, _shown(last.sampling))


def _shown(sampling: Mapping[str, Any]) -> dict[str, str]:
    return {name: "" if sampling.get(name) is None else str(sampling[name]) for name in FIELDS}
