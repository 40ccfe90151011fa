"""Turn one row of any known format into chat messages. Formats are recognised by their fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.core.errors import Fault

Messages = list[dict[str, str]]
ROLES = ("system", "user", "assistant")


class RowFault(Exception):
    """A row cannot be used: which field, and why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message

    def at(self, row: int) -> Fault:
        """The fault with its row's number, from 1."""
        return Fault("file", f"row {row}: {self.field}: {self.message}" if self.field else f"row {row}: {self.message}")


def recognise(row: Mapping[str, Any]) -> str | None:
    """The format's name by the fields of a row, or None."""
    if "messages" in row:
        return "messages"
    if "instruction" in row and "output" in row:
        return "alpaca"
    if "prompt" in row and "completion" in row:
        return "prompt_completion"
    return None


def to_messages(row: Mapping[str, Any], format_name: str) -> Messages:
    """Raises: RowFault."""
    return _READERS[format_name](row)


def _alpaca(row: Mapping[str, Any]) -> Messages:
    instruction = _text(row, "instruction")
    extra = _text(row, "input", required=False)
    prompt = f"{instruction}\n\n{extra}" if extra.strip() else instruction
    return _dialogue(row, prompt, _answer(row, "output"))


def _prompt_completion(row: Mapping[str, Any]) -> Messages:
    return _dialogue(row, _text(row, "prompt"), _answer(row, "completion"))


def _dialogue(row: Mapping[str, Any], prompt: str, answer: str) -> Messages:
    system = _text(row, "system", required=False)
    opening = [{"role": "system", "content": system}] if system.strip() else []
    return [*opening, {"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def _messages(row: Mapping[str, Any]) -> Messages:
    turns = row.get("messages")
    if not isinstance(turns, list) or not turns:
        raise RowFault("messages", "is not a list of {role, content}")
    messages = [_message(turn, index) for index, turn in enumerate(turns)]
    if not any(m["role"] == "assistant" and m["content"].strip() for m in messages):
        raise RowFault("messages", "has no answer: no assistant message with text")
    return messages


def _message(turn: Any, index: int) -> dict[str, str]:
    place = f"messages[{index}]"
    if not isinstance(turn, Mapping):
        raise RowFault(place, "is not an object with role and content")
    if turn.get("role") not in ROLES:
        raise RowFault(f"{place}.role", f"is {turn.get('role')!r}; known roles: {', '.join(ROLES)}")
    if not isinstance(turn.get("content"), str):
        raise RowFault(f"{place}.content", "is not a text")
    return {"role": turn["role"], "content": turn["content"]}


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


_READERS: dict[str, Callable[[Mapping[str, Any]], Messages]] = {
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "messages": _messages,
}
