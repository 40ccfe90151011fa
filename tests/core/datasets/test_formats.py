"""Every row format becomes the same chat messages, or a fault that names its field."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.core.datasets.faults import RowFault
from app.core.datasets.formats import FORMATS, recognise, to_row

DOCS = Path(__file__).parents[3] / "docs" / "datasets.md"
USER, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
SYSTEM, TOOL = {"role": "system", "content": "S"}, {"role": "tool", "content": "T"}

THOUGHT = {"role": "assistant", "content": "<think>\nR\n</think>\n\nA"}


@pytest.mark.parametrize(
    ("row", "format_name", "messages"),
    [
        ({"instruction": "Q", "output": "A"}, "alpaca", [USER, ANSWER]),
        ({"instruction": "Q", "input": "", "output": "A"}, "alpaca", [USER, ANSWER]),
        ({"instruction": "Q", "input": None, "output": "A"}, "alpaca", [USER, ANSWER]),
        ({"instruction": "Q", "input": "more", "output": "A"}, "alpaca",
         [{"role": "user", "content": "Q\n\nmore"}, ANSWER]),
        ({"system": "S", "instruction": "Q", "output": "A"}, "alpaca", [SYSTEM, USER, ANSWER]),
        ({"instruction": "Q", "output": "A", "history": [["Q", "A"], ["Q", "A"]], "system": "S"}, "alpaca",
         [SYSTEM, USER, ANSWER, USER, ANSWER, USER, ANSWER]),
        ({"prompt": "Q", "completion": "A"}, "prompt_completion", [USER, ANSWER]),
        ({"prompt": "Q", "completion": "A", "system": "S", "id": 5}, "prompt_completion", [SYSTEM, USER, ANSWER]),
        ({"messages": [SYSTEM, USER, ANSWER, USER, ANSWER]}, "messages", [SYSTEM, USER, ANSWER, USER, ANSWER]),
        ({"messages": [{**USER, "weight": 1}, ANSWER]}, "messages", [USER, ANSWER]),
        ({"messages": [{"role": "developer", "content": "S"}, USER, ANSWER]}, "messages", [SYSTEM, USER, ANSWER]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}, {"type": "text", "text": "more"}]},
                       ANSWER]}, "messages", [{"role": "user", "content": "Q\n\nmore"}, ANSWER]),
        ({"messages": [USER, {**ANSWER, "reasoning_content": "\nR\n"}]}, "messages", [USER, THOUGHT]),
        ({"messages": [USER, {**ANSWER, "thinking": "R"}]}, "messages", [USER, THOUGHT]),
        ({"messages": [USER, {**THOUGHT, "reasoning": "R"}]}, "messages", [USER, THOUGHT]),
        ({"messages": [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}]}, "messages",
         [USER, {**ANSWER, "weight": "0"}, USER, ANSWER]),
        ({"messages": [USER, ANSWER, TOOL, TOOL, ANSWER]}, "messages", [USER, ANSWER, TOOL, TOOL, ANSWER]),
        ({"instruction": "Q", "response": "A"}, "dolly", [USER, ANSWER]),
        ({"instruction": "Q", "context": "more", "response": "A", "category": "qa"}, "dolly",
         [{"role": "user", "content": "Q\n\nmore"}, ANSWER]),
        ({"instruction": "Q", "context": "", "response": "A", "system": "S"}, "dolly", [SYSTEM, USER, ANSWER]),
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}, "sharegpt",
         [USER, ANSWER]),
        ({"conversations": [{"from": "system", "value": "S"}, {"from": "user", "value": "Q"},
                            {"from": "function_call", "value": "A"}, {"from": "observation", "value": "T"},
                            {"from": "assistant", "value": "A"}], "id": 1}, "sharegpt",
         [SYSTEM, USER, ANSWER, TOOL, ANSWER]),
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "system": "S"}, "sharegpt",
         [SYSTEM, USER, ANSWER]),
    ],
)  # fmt: skip
def test_known_rows(row: dict[str, Any], format_name: str, messages: list[dict[str, str]]) -> None:
    assert recognise(row) == format_name
    assert to_row(row, format_name) == {"messages": messages}


def test_a_text_is_kept_as_it_is() -> None:
    row = {"text": " Once\n", "meta": {"id": 1}}
    assert recognise(row) == "text"
    assert to_row(row, "text") == {"text": " Once\n"}


@pytest.mark.parametrize(
    ("more", "format_name"),
    [
        ({"text": "T", "instruction": "Q", "output": "A"}, "alpaca"),
        ({"text": "T", "messages": [USER, ANSWER]}, "messages"),
        ({"messages": [USER, ANSWER], "conversations": []}, "messages"),
        ({"conversations": [], "instruction": "Q", "output": "A"}, "sharegpt"),
        ({"instruction": "Q", "output": "A", "response": "A"}, "alpaca"),
        ({"prompt": "Q", "completion": "A", "instruction": "Q", "response": "A"}, "dolly"),
        ({"prompt": "Q", "completion": "A", "chosen": "A", "rejected": "B", "messages": [], "text": "T"}, "preference"),
        ({"instruction": "Q", "output": "A", "chosen": "A", "rejected": "B"}, "preference_alpaca"),
        ({"instruction": "Q", "prompt": "Q", "conversations": [], "chosen": "A", "rejected": "B"},
         "preference_sharegpt"),
    ],
)  # fmt: skip
def test_a_row_with_the_fields_of_several_formats_is_of_the_first(more: dict[str, Any], format_name: str) -> None:
    assert recognise(more) == recognise(dict(reversed(more.items()))) == format_name


def test_each_format_is_documented_in_order_with_a_row_that_can_be_read() -> None:
    text = DOCS.read_text(encoding="utf-8")
    documented = re.findall(r"^\| `(\w+)` \| (.+?) \| (\w+) \|", text, re.MULTILINE)
    assert documented == [
        (each.name, each.spelling.replace(", ", "`, `").join("``"), each.kind) for each in FORMATS.values()
    ]
    rows = [
        json.loads(line) for block in re.findall(r"```json\n(.+?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    names = [str(recognise(row)) for row in rows]
    assert set(names) == set(FORMATS)
    for row, name in zip(rows, names, strict=True):
        assert to_row(row, name)


def test_tool_calls_become_lines_of_json_after_the_text() -> None:
    calls = [
        {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"city": "Łódź"}'}},
        {"function": {"name": "now", "arguments": {}}},
    ]
    lines = '{"name": "find", "arguments": {"city": "Łódź"}}\n{"name": "now", "arguments": {}}'
    for content, text in ((None, lines), ("Wait.", f"Wait.\n{lines}")):
        row = {"messages": [USER, {"role": "assistant", "content": content, "tool_calls": calls}, TOOL, ANSWER]}
        assert to_row(row, "messages")["messages"][1] == {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("calls", "field"),
    [
        ("find()", "messages[1].tool_calls"),
        (["find"], "messages[1].tool_calls[0]"),
        ([{"function": {"name": 5}}], "messages[1].tool_calls[0]"),
        ([{"function": {"name": "find", "arguments": "{oops"}}], "messages[1].tool_calls[0].function.arguments"),
    ],
)
def test_a_tool_call_that_cannot_be_read_is_refused(calls: Any, field: str) -> None:
    with pytest.raises(RowFault) as caught:
        to_row({"messages": [USER, {"role": "assistant", "tool_calls": calls}]}, "messages")
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("turns", "index", "message"),
    [
        ([USER, USER, ANSWER], 1, "has the role user where assistant is expected after user"),
        ([USER, ANSWER, ANSWER], 2, "has the role assistant where user or tool is expected after assistant"),
        ([USER, SYSTEM, ANSWER], 1, "has the role system where assistant is expected after user"),
        ([TOOL, USER, ANSWER], 0, "has the role tool where system or user is expected at the start"),
    ],
)
def test_turns_out_of_order_name_the_turn(turns: list[dict[str, str]], index: int, message: str) -> None:
    speakers = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}
    spoken = [{"from": speakers[turn["role"]], "value": turn["content"]} for turn in turns]
    for field, value, name in (("messages", turns, "messages"), ("conversations", spoken, "sharegpt")):
        with pytest.raises(RowFault) as caught:
            to_row({field: value}, name)
        assert (caught.value.field, caught.value.message) == (f"{field}[{index}]", message)


@pytest.mark.parametrize(("turns", "index"), [([ANSWER], 0), ([ANSWER, USER, ANSWER], 0), ([SYSTEM, ANSWER], 1)])
def test_an_answer_that_opens_a_list_of_messages_is_refused(turns: list[dict[str, str]], index: int) -> None:
    with pytest.raises(RowFault, match="is an answer that no user message precedes") as caught:
        to_row({"messages": turns}, "messages")
    assert caught.value.field == f"messages[{index}]"


GPT, HUMAN, OPENS = {"from": "gpt", "value": "A"}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "cut off"}
CALL, RESULT = {"from": "function_call", "value": "C"}, {"from": "observation", "value": "T"}
SPOKEN_SYSTEM = {"from": "system", "value": "S"}


@pytest.mark.parametrize(
    ("turns", "system", "kept"),
    [
        ([OPENS, HUMAN, GPT], None, [USER, ANSWER]),
        ([SPOKEN_SYSTEM, OPENS, HUMAN, GPT], None, [SYSTEM, USER, ANSWER]),
        ([OPENS, HUMAN, GPT, HUMAN, GPT], "S", [SYSTEM, USER, ANSWER, USER, ANSWER]),
        ([CALL, RESULT, OPENS, HUMAN, GPT], None, [USER, ANSWER]),
    ],
)
def test_answers_that_open_a_cut_conversation_are_left_out_and_said(
    turns: list[dict[str, str]], system: str | None, kept: list[dict[str, str]]
) -> None:
    row = {"conversations": turns, "system": system}
    assert to_row(row, "sharegpt") == {"messages": kept}
    assert FORMATS["sharegpt"].notice(row) == "Opening answers that no user's turn precedes are left out of"
    whole = {"conversations": turns[-2:]}
    assert to_row(whole, "sharegpt") == {"messages": [USER, ANSWER]}
    assert FORMATS["sharegpt"].notice(whole) is None


@pytest.mark.parametrize(
    ("turns", "field", "message"),
    [
        ([OPENS], "conversations", "has no answer: no assistant message behind a user's"),
        ([SPOKEN_SYSTEM, OPENS], "conversations", "has no answer: no assistant message behind a user's"),
        ([OPENS, HUMAN], "conversations", "has no answer: no assistant message behind a user's"),
        ([OPENS, GPT, HUMAN, GPT], "conversations[1]", "has the role assistant where user or tool is expected"),
        ([OPENS, HUMAN, HUMAN, GPT], "conversations[2]", "has the role user where assistant is expected after user"),
        ([RESULT, OPENS, HUMAN, GPT], "conversations[0]", "has the role tool where system or user is expected"),
    ],
)
def test_what_else_is_out_of_order_in_a_cut_conversation_is_refused(
    turns: list[dict[str, str]], field: str, message: str
) -> None:
    with pytest.raises(RowFault) as caught:
        to_row({"conversations": turns}, "sharegpt")
    assert caught.value.field == field
    assert message in caught.value.message


def test_two_system_prompts_are_out_of_order() -> None:
    turns = [{"from": "system", "value": "S"}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    with pytest.raises(RowFault, match="has the role system where user is expected after system"):
        to_row({"system": "S", "conversations": turns}, "sharegpt")


def test_a_format_is_chosen_among_those_that_read_the_wanted_fields() -> None:
    row = {"messages": [], "prompt": "Q", "completion": "A"}
    assert recognise(row) == "messages"
    assert recognise(row, wanted=["completion"]) == "prompt_completion"
    assert recognise(row, wanted=["context"]) is None
    assert recognise({"text": "T", "messages": []}, wanted=["text"]) == "text"


def test_a_format_names_its_fields() -> None:
    assert str(FORMATS["prompt_completion"]) == "prompt_completion (prompt, completion, [system])"
    assert FORMATS["alpaca"].required == ("instruction", "output")
    assert str(FORMATS["sharegpt"]) == "sharegpt (conversations, [system]: a list of from and value)"


@pytest.mark.parametrize("name", ["messages", "sharegpt"])
def test_tools_that_are_left_out_are_said(name: str) -> None:
    turns = {"messages": [USER, ANSWER], "conversations": [{"from": "human", "value": "Q"}]}
    row = {**turns, "tools": [{"type": "function"}]}
    assert FORMATS[name].notice(row) == "The tools that could be called are left out of"
    assert [FORMATS[name].notice({**turns, "tools": none}) for none in (None, [], "", "[]")] == [None] * 4


@pytest.mark.parametrize("row", [{}, {"instruction": "Q"}, {"prompt": "Q"}, {"output": "A"}])
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
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "messages", "messages[1].content",
         "has no answer"),
        ({"messages": [USER, "A"]}, "messages", "messages[1]", "is not an object"),
        ({"messages": [{"role": "human", "content": "Q"}]}, "messages", "messages[0].role", "'human'; known roles"),
        ({"messages": [{"role": ["user"], "content": "Q"}]}, "messages", "messages[0].role", "known roles"),
        ({"messages": [USER, {"role": "assistant"}]}, "messages", "messages[1].content", "is not a text"),
        ({"messages": [{"role": "user", "content": ""}, ANSWER]}, "messages", "messages[0].content", "is empty"),
        ({"instruction": "Q", "response": ""}, "dolly", "response", "has no answer"),
        ({"conversations": {}}, "sharegpt", "conversations", "is not a list of {from, value}"),
        ({"conversations": [{"from": "bot", "value": "A"}]}, "sharegpt", "conversations[0].from", "'bot'; known roles"),
        ({"conversations": [{"from": "human", "value": 1}]}, "sharegpt", "conversations[0].value", "is not a text"),
        ({"conversations": [USER]}, "sharegpt", "conversations[0].from", "is 'None'; known roles"),
        ({"conversations": [{"from": "human", "value": "Q"}]}, "sharegpt", "conversations", "has no answer"),
        ({"conversations": [], "system": 5}, "sharegpt", "conversations", "is not a list"),
        ({"text": ""}, "text", "text", "is empty"),
        ({"text": " \n"}, "text", "text", "is empty"),
        ({"text": None}, "text", "text", "is missing"),
        ({"text": ["T"]}, "text", "text", "is not a text but list"),
        ({"prompt": "Q", "completion": "A", "system": 5}, "prompt_completion", "system", "is not a text but int"),
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, "messages", "messages", "no answer to learn"),
        ({"messages": [USER, {**ANSWER, "weight": 0.5}]}, "messages", "messages[1].weight", "is 0.5; it may be 0 or 1"),
        ({"messages": [USER, {**ANSWER, "weight": False}]}, "messages", "messages[1].weight", "is False"),
        ({"messages": [USER, {**ANSWER, "reasoning": 7}]}, "messages", "messages[1].reasoning", "is not a text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, ANSWER]}, "messages",
         "messages[0].content", "a part of the type image_url; only text is learned"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}, ANSWER]}, "messages", "messages[0].content",
         "is not a text"),
        ({"instruction": "Q", "output": "A", "history": [["Q"]]}, "alpaca", "history", "list of [question, answer]"),
        ({"instruction": "Q", "output": "A", "history": [["Q", ""]]}, "alpaca", "history[0][1]", "is empty"),
    ],
)  # fmt: skip
def test_unusable_rows_name_their_field(row: dict[str, Any], format_name: str, field: str, message: str) -> None:
    with pytest.raises(RowFault) as caught:
        to_row(row, format_name)
    assert caught.value.field == field
    assert message in caught.value.message
    assert caught.value.at(12).message.startswith(f"row 12: {field}: ")
