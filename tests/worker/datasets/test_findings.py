"""Every way in which a row can be of no use has its kind; the first problems are named, all are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.core.datasets.faults import RowFault
from app.core.datasets.formats import recognise, to_row
from app.core.datasets.reader import read_rows
from app.core.datasets.report import KIND_WORDS, NAMED_PROBLEMS, USABLE, ProblemKind
from worker.datasets.findings import MAX_MESSAGE, Findings

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}
PAIR = {"prompt": "Hi", "chosen": "Yo", "rejected": "No"}
FAULTY: list[tuple[dict[str, Any], ProblemKind]] = [
    ({"instruction": "Hi", "output": ""}, ProblemKind.EMPTY_ANSWER),
    ({"instruction": "Hi", "output": None}, ProblemKind.MISSING_FIELD),
    ({"instruction": " ", "output": "Yo"}, ProblemKind.EMPTY_FIELD),
    ({"instruction": 5, "output": "Yo"}, ProblemKind.WRONG_TYPE),
    ({"messages": "Hi"}, ProblemKind.WRONG_TYPE),
    ({"messages": ["Hi"]}, ProblemKind.WRONG_TYPE),
    ({"messages": [USER, {"role": "bot", "content": "Yo"}]}, ProblemKind.ROLE),
    ({"messages": [USER, {"role": "assistant", "content": " "}]}, ProblemKind.EMPTY_ANSWER),
    ({"messages": [{"role": "user", "content": ""}, ANSWER]}, ProblemKind.EMPTY_FIELD),
    ({"messages": [USER]}, ProblemKind.EMPTY_ANSWER),
    ({"messages": [USER, USER, ANSWER]}, ProblemKind.TURN_ORDER),
    ({"messages": [ANSWER]}, ProblemKind.TURN_ORDER),
    ({"conversations": [{"from": "robot", "value": "Hi"}]}, ProblemKind.ROLE),
    ({**PAIR, "rejected": "Yo"}, ProblemKind.SAME_ANSWERS),
    ({**PAIR, "prompt": [USER, ANSWER]}, ProblemKind.TURN_ORDER),
    ({**PAIR, "chosen": [ANSWER, USER]}, ProblemKind.TURN_ORDER),
    ({"chosen": [USER, ANSWER], "rejected": [{**USER, "content": "Ho"}, ANSWER]}, ProblemKind.PROMPT_MISMATCH),
    ({**PAIR, "chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "No"}], "prompt": "Ho"},
     ProblemKind.PROMPT_MISMATCH),
    ({"chosen": [ANSWER], "rejected": [{**ANSWER, "content": "No"}]}, ProblemKind.MISSING_FIELD),
]  # fmt: skip
UNREADABLE: list[tuple[str, ProblemKind]] = [
    ("{", ProblemKind.UNREADABLE),
    ("[1]", ProblemKind.UNREADABLE),
    ('{"text": ' + "[" * 99 + "]" * 99 + "}", ProblemKind.UNREADABLE),
    ('{"text": "\\u0000"}', ProblemKind.UNREADABLE),
    ('{"text": "\\ud83d"}', ProblemKind.SURROGATE),
    ('{"text": NaN}', ProblemKind.NOT_FINITE),
    ('{"text": -Infinity}', ProblemKind.NOT_FINITE),
    ('{"text": 1e999}', ProblemKind.NOT_FINITE),
]


@pytest.mark.parametrize(("row", "kind"), FAULTY, ids=lambda value: str(value)[:60])
def test_a_row_of_no_use_has_its_kind(row: dict[str, Any], kind: ProblemKind) -> None:
    format_name = recognise(row)
    assert format_name is not None
    findings = Findings()
    with pytest.raises(RowFault) as caught:
        to_row(row, format_name)
    findings.add_fault(3, caught.value)
    assert (findings.counts, findings.unusable) == ({kind.value: 1}, 1)
    assert (findings.named[0]["row"], findings.named[0]["field"]) == (3, caught.value.field)


@pytest.mark.parametrize(("line", "kind"), UNREADABLE, ids=lambda value: str(value)[:20])
def test_a_row_that_cannot_be_read_has_its_kind(line: str, kind: ProblemKind, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    ((number, fault),) = read_rows(path)
    assert isinstance(fault, RowFault)
    findings = Findings()
    findings.add_fault(number, fault)
    assert findings.counts == {kind.value: 1}


def test_the_first_are_named_and_all_are_counted() -> None:
    findings = Findings()
    for row in range(1, 31):
        findings.add(row, "text", ProblemKind.EMPTY_FIELD, "is empty")
        findings.add(row, "text", ProblemKind.ROLE, "x" * 10_000)
        findings.add(row, "text", ProblemKind.MOJIBAKE, "reads")
    assert findings.counts == {"empty_field": 30, "role": 30, "mojibake": 30}
    assert findings.unusable == 30  # of a row with two faults one; an odd character is none
    assert [each["row"] for each in findings.named if each["kind"] == "role"] == list(range(1, NAMED_PROBLEMS + 1))
    assert max(len(each["message"]) for each in findings.named) == MAX_MESSAGE + 1
    assert json.loads(json.dumps(findings.to_json()))["counts"]["role"] == 30


def test_every_kind_is_described() -> None:
    assert set(KIND_WORDS) == set(ProblemKind) > USABLE
