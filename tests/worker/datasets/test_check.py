"""The doctor reads every row and tells what is wrong, without torch; nothing that is wrong stops it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.datasets.formats import FORMATS
from app.core.datasets.normalise import normalise
from app.core.errors import InvalidInput, JobCancelled
from tests.worker.contexts import make_context, read_records
from worker.context import StopRequest
from worker.datasets import progress
from worker.datasets.check import run_check

Check = Callable[..., dict[str, Any]]


def alpaca(number: int, **fields: Any) -> str:
    return json.dumps({"instruction": f"Say {number}.", "output": f"It is {number}.", **fields})


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """The report of a file's lines."""

    def check(lines: list[str], name: str = "rows.jsonl", **spec: Any) -> dict[str, Any]:
        path = tmp_path / name
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        payload = {"spec": {"max_length": None, **spec}, "dataset": None, "path": str(path), "base_model": None}
        return run_check(make_context(tmp_path / "job", "check", payload))

    return check


def problems(report: dict[str, Any]) -> list[tuple[int | None, str, str]]:
    return [(each["row"], each["field"], each["kind"]) for each in report["problems"]]


def test_a_sound_file(check: Check) -> None:
    report = check([alpaca(number) for number in range(40)])
    assert {name: report[name] for name in ("format", "kind", "recognised_by", "rows", "unusable", "problems")} == {
        "format": "alpaca", "kind": "messages", "recognised_by": ["instruction", "output"], "rows": 40, "unusable": 0,
        "problems": [],
    }  # fmt: skip
    assert (report["duplicates"], report["tokens"]) == (0, None)
    assert (report["split"]["rows"], report["split"]["eval_fraction"]) == (4, 0.1)


def test_rows_of_no_use_are_told_and_do_not_stop_it(check: Check) -> None:
    lines = [alpaca(1), "{", alpaca(2, output=""), '{"instruction": "Hi"}', '{"text": "Hi"}', alpaca(3, input="\u200b")]
    report = check(lines)
    assert problems(report) == [
        (2, "", "unreadable"),
        (3, "output", "empty_answer"),
        (4, "output", "missing_field"),
        (5, "", "format"),
        (6, "input", "invisible_character"),
    ]
    assert (report["rows"], report["unusable"], report["split"]) == (6, 4, None)


def test_a_file_of_no_known_format_is_described(check: Check) -> None:
    report = check(['{"question": "Hi", "answer": "Yo"}'] * 3)
    assert (report["format"], report["kind"], report["unusable"]) == (None, None, 3)
    assert report["problems"][0]["message"] == "is of no known format; its fields are 'question', 'answer'"
    mapped = check(
        ['{"question": "Hi", "answer": "Yo\u200b"}'], columns={"instruction": "question", "output": "answer"}
    )
    assert (mapped["format"], problems(mapped)) == ("alpaca", [(1, "answer", "invisible_character")])
    with pytest.raises(InvalidInput, match="'reply'"):
        check(['{"question": "Hi"}'], columns={"instruction": "question", "output": "reply"})


def test_a_file_that_cannot_be_read_on_is_described_up_to_there(check: Check) -> None:
    report = check(["[" + alpaca(1) + ",", alpaca(2) + ",", "{]"], "rows.json")
    assert (report["rows"], report["format"], problems(report)) == (2, "alpaca", [(None, "file", "file")])
    assert "Row 3" in report["problems"][0]["message"]
    assert problems(check([])) == [(None, "file", "file")]


def test_duplicates_are_counted_and_named(check: Check) -> None:
    lines = [alpaca(0), alpaca(1), "{", alpaca(0, score=3), alpaca(2), alpaca(1), alpaca(0)]
    report = check(lines)  # what training does not read makes no difference
    assert report["duplicates"] == 3
    assert report["duplicate_rows"] == [{"row": 4, "of": 1}, {"row": 6, "of": 2}, {"row": 7, "of": 1}]


def test_rows_held_out_that_are_also_trained_on_are_counted(check: Check) -> None:
    assert check([alpaca(number % 10) for number in range(20)])["split"]["twins"] > 0
    assert check([alpaca(number) for number in range(20)])["split"]["twins"] == 0
    assert check([alpaca(0)])["split"] is None


def test_opening_answers_that_are_left_out_are_told(check: Check) -> None:
    turns = [{"from": "gpt", "value": "Yes?"}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    lines = [json.dumps({"conversations": turns[1:]}), json.dumps({"conversations": turns})]
    assert problems(check(lines)) == [(2, "", "opening_left_out")]


def test_a_dataset_has_the_row_numbers_of_its_file(tmp_path: Path) -> None:
    source, rows = tmp_path / "source.jsonl", tmp_path / "rows.jsonl"
    source.write_text("\n".join([alpaca(1), "", alpaca(1), alpaca(2, input="\ufffd")]) + "\n", encoding="utf-8")
    checked = normalise(source, rows)
    dataset = {"path": str(rows), "format": checked.format, "kind": checked.kind.value}
    payload = {"spec": {"max_length": None}, "dataset": dataset, "path": None, "base_model": None}
    report = run_check(make_context(tmp_path / "job", "check", payload))
    assert (report["format"], report["recognised_by"]) == ("alpaca", list(FORMATS["alpaca"].required))
    assert problems(report) == [(3, "messages[0].content", "replacement_character")]
    assert report["duplicate_rows"] == [{"row": 2, "of": 1}]


def test_what_is_found_is_told_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_FIRST_PAUSE_SECONDS", 0)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(["{", *(alpaca(number) for number in range(200))]) + "\n")
    payload = {"spec": {"max_length": None}, "dataset": None, "path": str(path), "base_model": None}
    context = make_context(tmp_path / "job", "check", payload)
    run_check(context)
    told = [record.data for record in read_records(context) if record.kind == "summary"]
    assert (told[0]["rows"], told[1]["rows"], told[1]["problems"][0]["row"]) == (0, 64, 1)
    steps = [record for record in read_records(context) if record.kind == "progress"]
    assert steps[-1].step == steps[-1].data["max_steps"] == path.stat().st_size


def test_it_stops_where_that_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(alpaca(1) + "\n")
    payload = {"spec": {"max_length": None}, "dataset": None, "path": str(path), "base_model": None}
    context = make_context(tmp_path / "job", "check", payload)
    context.stop_request = StopRequest.CANCEL
    with pytest.raises(JobCancelled):
        run_check(context)


def test_without_a_model_no_tokenizer_is_imported() -> None:
    code = "import sys, worker.datasets.check; sys.exit(bool({'torch', 'transformers', 'sqlmodel'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
