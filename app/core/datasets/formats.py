"""Turn one row of any known format into chat messages. Formats are recognised by their fields."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from app.core.datasets.faults import RowFault
from app.core.datasets.turns import Messages, opening, read_conversations, read_messages


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write rows: recognised by its required fields."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], Messages]
    holds: str = ""  # what the one field of a conversation is a list of

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields that are read, in the order in which people name them."""
        return self.required[:1] + self.optional[:-1] + self.required[1:] + self.optional[-1:]

    def fits(self, row: Collection[str]) -> bool:
        """Whether the row has the fields by which the format is recognised."""
        return all(field in row for field in self.required)

    def __str__(self) -> str:
        named = (f"[{field}]" if field in self.optional else field for field in self.fields)
        return f"{self.name} ({', '.join(named)}{': ' + self.holds if self.holds else ''})"


def recognise(row: Mapping[str, Any], wanted: Collection[str] = ()) -> str | None:
    """The name of the first format whose fields the row has and that reads all `wanted` fields, or None."""
    fitting = (each for each in FORMATS.values() if each.fits(row) and set(wanted) <= set(each.fields))
    return next((each.name for each in fitting), None)


def to_messages(row: Mapping[str, Any], format_name: str) -> Messages:
    """Raises: RowFault."""
    return FORMATS[format_name].read(row)


def _alpaca(row: Mapping[str, Any]) -> Messages:
    return _dialogue(row, _with_context(row, "input"), _answer(row, "output"))


def _dolly(row: Mapping[str, Any]) -> Messages:
    return _dialogue(row, _with_context(row, "context"), _answer(row, "response"))


def _prompt_completion(row: Mapping[str, Any]) -> Messages:
    return _dialogue(row, _text(row, "prompt"), _answer(row, "completion"))


def _with_context(row: Mapping[str, Any], field: str) -> str:
    instruction = _text(row, "instruction")
    context = _text(row, field, required=False)
    return f"{instruction}\n\n{context}" if context.strip() else instruction


def _dialogue(row: Mapping[str, Any], prompt: str, answer: str) -> Messages:
    return [*opening(row), {"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def _text(row: Mapping[str, Any], field: str, *, required: bool = True) -> str:
    value = row.get(field)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise RowFault(field, "is missing" if value is None else f"is not a text but {type(value).__name__}")
    if required and not value.strip():
        raise RowFault(field, "is empty")
    return value


def _answer(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise RowFault(field, "has no answer: it is empty")
    return _text(row, field)


_ALL = (
    Format("messages", ("messages",), (), read_messages, holds="a list of role and content"),
    Format("sharegpt", ("conversations",), ("system",), read_conversations, holds="a list of from and value"),
    Format("alpaca", ("instruction", "output"), ("input", "system"), _alpaca),
    Format("dolly", ("instruction", "response"), ("context", "system"), _dolly),
    Format("prompt_completion", ("prompt", "completion"), ("system",), _prompt_completion),
)
FORMATS = {each.name: each for each in _ALL}
FIELDS = tuple(dict.fromkeys(field for each in _ALL for field in each.fields))  # to which columns can be mapped
