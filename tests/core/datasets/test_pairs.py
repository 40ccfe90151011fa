"""Preference pairs in each spelling become a prompt and two answers, or a fault that names its field."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from app.core.datasets.faults import RowFault
from app.core.datasets.formats import recognise, to_row
from app.core.datasets.normalise import normalise

USER, ANSWER, OTHER = (
    {"role": role, "content": text} for role, text in (("user", "Q"), ("assistant", "A"), ("assistant", "B"))
)
SYSTEM, TOOL = {"role": "system", "content": "S"}, {"role": "tool", "content": "T"}
HUMAN, GPT, GPT_OTHER = ({"from": name, "value": text} for name, text in (("human", "Q"), ("gpt", "A"), ("gpt", "B")))
SAMPLES = os.environ.get("LORADECK_TEST_DATA")  # a folder with alpaca_en_demo.json and dpo_en_demo.json


@pytest.mark.parametrize(
    ("row", "format_name", "prompt"),
    [
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "preference", [USER]),
        ({"prompt": "Q", "chosen": "A", "rejected": "B", "system": "S", "score": 1}, "preference", [SYSTEM, USER]),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}, "preference", [USER]),
        ({"prompt": [SYSTEM, USER], "chosen": "A", "rejected": OTHER}, "preference", [SYSTEM, USER]),
        ({"prompt": [USER, ANSWER, USER], "chosen": [ANSWER], "rejected": [OTHER]}, "preference",
         [USER, ANSWER, USER]),
        ({"prompt": [HUMAN], "chosen": [GPT], "rejected": [GPT_OTHER]}, "preference", [USER]),
        ({"chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, "preference", [USER]),
        ({"chosen": [SYSTEM, USER, ANSWER, USER, ANSWER], "rejected": [SYSTEM, USER, ANSWER, USER, OTHER]},
         "preference", [SYSTEM, USER, ANSWER, USER]),
        ({"chosen": [USER, ANSWER], "rejected": [USER, OTHER], "system": "S"}, "preference", [SYSTEM, USER]),
        ({"prompt": "Q", "chosen": [USER, ANSWER], "rejected": [USER, OTHER], "messages": [USER, ANSWER]}, "preference",
         [USER]),
        ({"prompt": None, "chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, "preference", [USER]),
        ({"prompt": [SYSTEM, USER], "chosen": [SYSTEM, USER, ANSWER], "rejected": [SYSTEM, USER, OTHER]}, "preference",
         [SYSTEM, USER]),
        ({"instruction": "Q", "chosen": "A", "rejected": "B"}, "preference_alpaca", [USER]),
        ({"instruction": "Q", "input": "I", "chosen": "A", "rejected": "B", "system": "S"}, "preference_alpaca",
         [SYSTEM, {"role": "user", "content": "Q\n\nI"}]),
        ({"instruction": "Q", "input": "", "chosen": [ANSWER], "rejected": GPT_OTHER}, "preference_alpaca", [USER]),
        ({"conversations": [HUMAN], "chosen": GPT, "rejected": GPT_OTHER}, "preference_sharegpt", [USER]),
        ({"conversations": [HUMAN, GPT, HUMAN], "chosen": "A", "rejected": [GPT_OTHER]}, "preference_sharegpt",
         [USER, ANSWER, USER]),
        ({"conversations": [{"from": "system", "value": "S"}, HUMAN], "chosen": GPT, "rejected": "B"},
         "preference_sharegpt", [SYSTEM, USER]),
        ({"conversations": [HUMAN], "chosen": GPT, "rejected": "B", "system": "S"}, "preference_sharegpt",
         [SYSTEM, USER]),
    ],
)  # fmt: skip
def test_known_pairs(row: dict[str, Any], format_name: str, prompt: list[dict[str, str]]) -> None:
    assert recognise(row) == format_name
    assert to_row(row, format_name) == {"prompt": prompt, "chosen": [ANSWER], "rejected": [OTHER]}


def test_answers_of_several_turns() -> None:
    found = to_row({"prompt": "Q", "chosen": [ANSWER, TOOL, OTHER], "rejected": "B"}, "preference")
    assert (found["chosen"], found["rejected"]) == ([ANSWER, TOOL, OTHER], [OTHER])
    whole = {"chosen": [USER, ANSWER, TOOL, ANSWER], "rejected": [USER, ANSWER, TOOL, OTHER]}
    assert to_row(whole, "preference") == {"prompt": [USER, ANSWER, TOOL], "chosen": [ANSWER], "rejected": [OTHER]}


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"prompt": "Q", "chosen": "A", "rejected": "A"}, "rejected", "is the same as chosen"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, "rejected", "is the same as chosen"),
        ({"prompt": "Q", "chosen": "", "rejected": "B"}, "chosen", "has no answer: it is empty"),
        ({"prompt": "Q", "chosen": [], "rejected": "B"}, "chosen", "has no answer: it is empty"),
        ({"prompt": "Q", "chosen": {}, "rejected": "B"}, "chosen.role", "is 'None'; known roles"),
        ({"prompt": "Q", "chosen": "A", "rejected": None}, "rejected", "has no answer: it is missing"),
        ({"prompt": "Q", "chosen": "A", "rejected": " \n"}, "rejected", "has no answer: it is empty"),
        ({"prompt": "Q", "chosen": 5, "rejected": "B"}, "chosen", "is not a text but int"),
        ({"prompt": "Q", "chosen": [{"role": "assistant", "content": ""}], "rejected": "B"}, "chosen[0].content",
         "has no answer: it is empty"),
        ({"prompt": "Q", "chosen": "A", "rejected": ["B"]}, "rejected[0]", "is not an object with role and content"),
        ({"prompt": "Q", "chosen": "A", "rejected": [{"from": "bot", "value": "B"}]}, "rejected[0].from", "'bot'"),
        ({"prompt": "Q", "chosen": [ANSWER, USER], "rejected": "B"}, "chosen", "does not end with an answer"),
        ({"prompt": "Q", "chosen": "A", "rejected": [OTHER, TOOL]}, "rejected", "does not end with an answer"),
        ({"prompt": "Q", "chosen": [ANSWER, OTHER], "rejected": "B"}, "chosen[1]", "has the role assistant where user"),
        ({"prompt": "Q", "chosen": "A", "rejected": TOOL}, "rejected[0]", "has the role tool where assistant"),
        ({"prompt": [USER, ANSWER], "chosen": "A", "rejected": "B"}, "prompt", "ends with the role assistant"),
        ({"prompt": [SYSTEM], "chosen": "A", "rejected": "B"}, "prompt", "ends with the role system"),
        ({"prompt": [USER, USER], "chosen": "A", "rejected": "B"}, "prompt[1]", "has the role user where assistant"),
        ({"prompt": [ANSWER], "chosen": "A", "rejected": "B"}, "prompt[0]", "is an answer that no user message"),
        ({"prompt": [], "chosen": "A", "rejected": "B"}, "prompt", "is not a list of {role, content} or of"),
        ({"prompt": 5, "chosen": "A", "rejected": "B"}, "prompt", "is not a list of"),
        ({"prompt": "", "chosen": "A", "rejected": "B"}, "prompt", "is missing, and chosen and rejected are not whole"),
        ({"chosen": [ANSWER], "rejected": [OTHER]}, "prompt", "is missing, and chosen and rejected are not whole"),
        ({"chosen": [USER, ANSWER], "rejected": "B"}, "prompt", "is missing, and chosen and rejected are not whole"),
        ({"prompt": "Q", "chosen": [USER, ANSWER], "rejected": "B"}, "chosen[0]", "has the role user where assistant"),
        ({"chosen": [USER, ANSWER], "rejected": [{**USER, "content": "R"}, OTHER]}, "rejected", "does not begin with"),
        ({"prompt": "R", "chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, "prompt", "is not among the turns"),
        ({"chosen": [USER, ANSWER, USER, ANSWER], "rejected": [USER, ANSWER]}, "rejected", "has no answer behind"),
        ({"chosen": [USER], "rejected": [USER, OTHER]}, "chosen", "has no answer behind"),
        ({"chosen": [USER, ANSWER, USER, ANSWER], "rejected": [USER, ANSWER, {**USER, "content": "R"}, OTHER]},
         "chosen", "ends with the role assistant"),
        ({"chosen": [USER, USER, ANSWER], "rejected": [USER, USER, OTHER]}, "chosen[1]", "has the role user where"),
        ({"chosen": [SYSTEM, USER, ANSWER], "rejected": [SYSTEM, USER, OTHER], "system": "S"}, "chosen[0]",
         "has the role system where user is expected after system"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B", "system": 5}, "system", "is not a text but int"),
        ({"instruction": "", "chosen": "A", "rejected": "B"}, "instruction", "is empty"),
        ({"instruction": "Q", "chosen": "A", "rejected": ""}, "rejected", "has no answer"),
        ({"conversations": [], "chosen": "A", "rejected": "B"}, "conversations", "is not a list of"),
        ({"conversations": "Q", "chosen": "A", "rejected": "B"}, "conversations", "is not a list of"),
        ({"conversations": [HUMAN, GPT], "chosen": "A", "rejected": "B"}, "conversations", "ends with the role"),
        ({"conversations": [HUMAN, HUMAN], "chosen": "A", "rejected": "B"}, "conversations[1]", "has the role user"),
        ({"conversations": [HUMAN], "chosen": HUMAN, "rejected": GPT}, "chosen[0]", "has the role user where"),
    ],
)  # fmt: skip
def test_unusable_pairs_name_their_field(row: dict[str, Any], field: str, message: str) -> None:
    name = recognise(row)
    assert name is not None
    with pytest.raises(RowFault) as caught:
        to_row(row, name)
    assert (caught.value.field, message in caught.value.message) == (field, True), caught.value.message


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "A", "rejected": "B"},
        {"question": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": "Q", "chosen": "A"},
    ],
)
def test_texts_without_a_prompt_are_of_no_format_so_that_columns_can_be_mapped(row: dict[str, Any]) -> None:
    assert recognise(row) is None


@pytest.mark.skipif(not SAMPLES, reason="LORADECK_TEST_DATA names no folder with sample files")
@pytest.mark.parametrize(
    ("filename", "format_name", "rows"),
    [("dpo_en_demo.json", "preference_sharegpt", 300), ("alpaca_en_demo.json", "alpaca", None)],
)
def test_sample_files(tmp_path: Path, filename: str, format_name: str, rows: int | None) -> None:
    source = Path(str(SAMPLES)) / filename
    checked = normalise(source, tmp_path / "rows.jsonl")
    count = len(json.loads(source.read_text(encoding="utf-8")))
    assert (checked.format, checked.rows) == (format_name, count)
    assert rows in (None, count)
