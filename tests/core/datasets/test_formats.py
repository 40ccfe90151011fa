"""Every row format becomes the same chat messages, or a fault that names its field."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.datasets.formats import RowFault, recognise, to_messages

USER, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
SYSTEM = {"role": "system", "content": "S"}


@pytest.mark.parametrize(
    ("row", "format_name", "messages"),
    [
        ({"instruction": "Q", "output": "A"}, "alpaca", [USER, ANSWER]),
        ({"instruction": "Q", "input": "", "output": "A"}, "alpaca", [USER, ANSWER]),
        ({"instruction": "Q", "input": None, "output": "A"}, "alpaca", [USER, ANSWER]),
        ({"instruction": "Q", "input": "more", "output": "A"}, "alpaca",
         [{"role": "user", "content": "Q\n\nmore"}, ANSWER]),
        ({"system": "S", "instruction": "Q", "output": "A"}, "alpaca", [SYSTEM, USER, ANSWER]),
        ({"prompt": "Q", "completion": "A"}, "prompt_completion", [USER, ANSWER]),
        ({"prompt": "Q", "completion": "A", "system": "S", "id": 5}, "prompt_completion", [SYSTEM, USER, ANSWER]),
        ({"messages": [SYSTEM, USER, ANSWER, USER, ANSWER]}, "messages", [SYSTEM, USER, ANSWER, USER, ANSWER]),
        ({"messages": [{**USER, "weight": 1}, ANSWER]}, "messages", [USER, ANSWER]),
    ],
)  # fmt: skip
def test_known_rows(row: dict[str, Any], format_name: str, messages: list[dict[str, str]]) -> None:
    assert recognise(row) == format_name
    assert to_messages(row, format_name) == messages


@pytest.mark.parametrize("row", [{}, {"instruction": "Q"}, {"prompt": "Q"}, {"text": "T"}, {"output": "A"}])
def test_unknown_rows(row: dict[str, Any]) -> None:
    assert recognise(row) is None


@pytest.mark.parametrize(
    ("row", "format_name", "field", "message"),
    [
        ({"instruction": "Q", "output": ""}, "alpaca", "output", "has no answer"),
        ({"instruction": "Q", "output": " \n"}, "alpaca", "output", "has no answer"),
        ({"instruction": "Q", "output": None}, "alpaca", "output", "has no answer"),
        ({"instruction": "Q"}, "alpaca", "output", "has no answer"),
        ({"instruction": "Q", "output": 5}, "alpaca", "output", "is not a text but int"),
        ({"instruction": "", "output": "A"}, "alpaca", "instruction", "is empty"),
        ({"output": "A"}, "alpaca", "instruction", "is missing"),
        ({"instruction": "Q", "input": ["x"], "output": "A"}, "alpaca", "input", "is not a text but list"),
        ({"prompt": "Q", "completion": ""}, "prompt_completion", "completion", "has no answer"),
        ({"prompt": {}, "completion": "A"}, "prompt_completion", "prompt", "is not a text but dict"),
        ({"messages": []}, "messages", "messages", "is not a list of {role, content}"),
        ({"messages": "Q"}, "messages", "messages", "is not a list of {role, content}"),
        ({"messages": [USER]}, "messages", "messages", "has no answer"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "messages", "messages", "has no answer"),
        ({"messages": [USER, "A"]}, "messages", "messages[1]", "is not an object"),
        ({"messages": [{"role": "human", "content": "Q"}]}, "messages", "messages[0].role", "'human'; known roles"),
        ({"messages": [{"role": ["user"], "content": "Q"}]}, "messages", "messages[0].role", "known roles"),
        ({"messages": [USER, {"role": "assistant"}]}, "messages", "messages[1].content", "is not a text"),
    ],
)  # fmt: skip
def test_unusable_rows_name_their_field(row: dict[str, Any], format_name: str, field: str, message: str) -> None:
    with pytest.raises(RowFault) as caught:
        to_messages(row, format_name)
    assert caught.value.field == field
    assert message in caught.value.message
    assert caught.value.at(12).message.startswith(f"row 12: {field}: ")
