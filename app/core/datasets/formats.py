"""Turn one row of any known format into what training reads. Formats are recognised by their fields."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.core.datasets.fields import answer_field, question, text_field
from app.core.datasets.kinds import RowKind
from app.core.datasets.pairs import of_conversations, of_prompt, of_question
from app.core.datasets.turns import (
    Messages,
    opening,
    opens_with_answer,
    read_conversations,
    read_history,
    read_messages,
)

Normalised = dict[str, Any]  # one of the three kinds of row, see RowKind


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write rows: recognised by its required fields, those without brackets in `spelling`."""

    name: str
    kind: RowKind
    spelling: str
    read: Callable[[Mapping[str, Any]], Normalised]
    holds: str = ""  # what some fields are lists of
    suits: Callable[[Mapping[str, Any]], bool] = lambda _row: True  # where the fields' names do not tell enough
    notice: Callable[[Mapping[str, Any]], str | None] = lambda _row: None  # what of a row that was read is left out

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields that are read, in the order in which people name them."""
        return tuple(field.strip("[]") for field in self.spelling.split(", "))

    @property
    def required(self) -> tuple[str, ...]:
        """The fields that every row has."""
        return tuple(field for field in self.spelling.split(", ") if field[0] != "[")

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has the fields by which the format is recognised."""
        return all(field in row for field in self.required) and self.suits(row)

    def __str__(self) -> str:
        return f"{self.name} ({self.spelling}{': ' + self.holds if self.holds else ''})"


def recognise(row: Mapping[str, Any], wanted: Collection[str] = ()) -> str | None:
    """The name of the first format whose fields the row has and that reads all `wanted` fields, or None."""
    fitting = (each for each in FORMATS.values() if each.fits(row) and set(wanted) <= set(each.fields))
    return next((each.name for each in fitting), None)


def to_row(row: Mapping[str, Any], format_name: str) -> Normalised:
    """The row as training reads it, of the format's kind. Raises: RowFault."""
    return FORMATS[format_name].read(row)


def _messages(row: Mapping[str, Any]) -> Normalised:
    return {"messages": read_messages(row)}


def _sharegpt(row: Mapping[str, Any]) -> Normalised:
    return {"messages": read_conversations(row)}


def _alpaca(row: Mapping[str, Any]) -> Normalised:
    return _dialogue(row, question(row, "input"), answer_field(row, "output"), read_history(row))


def _dolly(row: Mapping[str, Any]) -> Normalised:
    return _dialogue(row, question(row, "context"), answer_field(row, "response"))


def _prompt_completion(row: Mapping[str, Any]) -> Normalised:
    return _dialogue(row, text_field(row, "prompt"), answer_field(row, "completion"))


def _dialogue(row: Mapping[str, Any], prompt: str, answer: str, before: Sequence[dict[str, str]] = ()) -> Normalised:
    turns: Messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"messages": [*opening(row), *before, *turns]}


def _text(row: Mapping[str, Any]) -> Normalised:
    return {"text": text_field(row, "text")}


def _opening_left_out(row: Mapping[str, Any]) -> str | None:
    return "Opening answers that no user's turn precedes are left out of" if opens_with_answer(row) else _tools(row)


def _tools(row: Mapping[str, Any]) -> str | None:
    """The calls themselves are learned; what could be called belongs into a system turn if the model shall know it."""
    return "The tools that could be called are left out of" if row.get("tools") not in (None, [], "", "[]") else None


def _names_its_prompt(row: Mapping[str, Any]) -> bool:
    """Without a prompt, only whole conversations say what was asked."""
    return "prompt" in row or isinstance(row["chosen"], list)


_TURNS = "a text, or a list of role and content"
# The order decides where a row has the fields of several: what says most goes first, and text last, since rows of other
# formats often repeat themselves in a field of that name.
_ALL = (
    Format("preference_sharegpt", RowKind.PREFERENCE, "conversations, chosen, rejected, [system]", of_conversations,
           holds="conversations a list of from and value; the answers each such a turn, or a text"),
    Format("preference_alpaca", RowKind.PREFERENCE, "instruction, [input], chosen, rejected, [system]", of_question),
    Format("preference", RowKind.PREFERENCE, "[prompt], chosen, rejected, [system]", of_prompt,
           holds=f"each {_TURNS}; prompt may be missing where chosen and rejected are whole conversations",
           suits=_names_its_prompt),
    Format("messages", RowKind.MESSAGES, "messages", _messages, holds="a list of role and content",
           notice=_tools),
    Format("sharegpt", RowKind.MESSAGES, "conversations, [system]", _sharegpt, holds="a list of from and value",
           notice=_opening_left_out),
    Format("alpaca", RowKind.MESSAGES, "instruction, [input], output, [system], [history]", _alpaca,
           holds="history a list of [question, answer]"),
    Format("dolly", RowKind.MESSAGES, "instruction, [context], response, [system]", _dolly),
    Format("prompt_completion", RowKind.MESSAGES, "prompt, completion, [system]", _prompt_completion),
    Format("text", RowKind.TEXT, "text", _text),
)  # fmt: skip
FORMATS = {each.name: each for each in _ALL}
FIELDS = tuple(dict.fromkeys(field for each in _ALL for field in each.fields))  # to which columns can be mapped
