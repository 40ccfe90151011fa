"""`loradeck datasets check` against a real server, whose files a real child checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.cli import checks
from app.cli.client import Client
from app.core.database import Database
from app.core.jobs import queue
from tests.cli.conftest import Command
from tests.data_lane import DataLane


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_sound_file(loradeck: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"instruction": "Hi", "output": word} for word in ("Yo", "Yo", "Ya")])
    result = loradeck("datasets", "check", path, "--json")
    assert result.code == 0
    assert {name: result.json[name] for name in ("format", "rows", "problems", "tokens", "duplicates")} == {
        "format": "alpaca", "rows": 3, "problems": [], "tokens": None, "duplicates": 1,
    }  # fmt: skip
    spoken = loradeck("datasets", "check", path)
    assert (spoken.code, "    row 2 says the same as row 1" in spoken.out.splitlines()) == (0, True)


def test_rows_of_no_use_are_bad_input(loradeck: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"instruction": "Hi", "output": "Yo"}, {"instruction": "Hi", "output": ""}])
    result = loradeck("datasets", "check", path, "--json")
    message = "has no answer: it is empty"
    assert (result.code, result.json["problems"]) == (
        2, [{"row": 2, "field": "output", "kind": "empty_answer", "message": message}],
    )  # fmt: skip
    assert f"    row 2: output {message}" in loradeck("datasets", "check", path).out.splitlines()
    assert loradeck("datasets", "check", write(tmp_path / "none.jsonl", [])).code == 2


def test_odd_characters_are_no_bad_input(loradeck: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"text": "lost \ufffd"}])
    result = loradeck("datasets", "check", path, "--json")
    assert (result.code, result.json["counts"]) == (0, {"replacement_character": 1})


@pytest.mark.usefixtures("spec")
def test_a_dataset_is_checked_by_its_name(loradeck: Command) -> None:
    result = loradeck("datasets", "check", "small", "--json")
    assert (result.code, result.json["rows"]) == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [(["none.jsonl"], "file"), (["a/b"], "file"), (["small", "--max-length", 64], "max_length")],
)
def test_bad_usage_names_the_field(loradeck: Command, arguments: list[Any], field: str) -> None:
    result = loradeck("datasets", "check", *arguments, "--json")
    assert (result.code, result.json["error"]["field"]) == (2, field)


def test_a_check_that_takes_longer_is_waited_for(
    loradeck: Command, tmp_path: Path, data_lane: DataLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_WAIT_SECONDS", 0)
    monkeypatch.setattr(checks, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(Client, "get", _with_a_worker(Client.get))
    path = write(tmp_path / "rows.jsonl", [{"text": "one"}])
    result = loradeck("datasets", "check", path)
    assert (result.code, result.err != "", "format: text" in result.out) == (0, True, True)
    assert loradeck("datasets", "check", path, "--json").err == ""


def test_a_check_that_is_cancelled_tells_what_it_had_found(
    loradeck: Command, tmp_path: Path, data_lane: DataLane, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = {"row": 7, "field": "output", "kind": "empty_answer", "message": "has no answer: it is empty"}
    found = {"rows": 1200, "unusable": 30, "counts": {"empty_answer": 30}, "problems": [problem]}

    def cancel(get: Any) -> Any:
        def answer(client: Client, path: str, **params: Any) -> Any:
            if path.startswith("/jobs/"):
                with database.write() as session:
                    job = queue.get_job(session, int(path.rpartition("/")[2]))
                    job.summary = found
                    queue.request_cancel(session, job)
            return get(client, path, **params)

        return answer

    monkeypatch.setattr(checks, "_WAIT_SECONDS", 0)
    monkeypatch.setattr(Client, "get", cancel(_with_a_worker(Client.get)))
    data_lane.paused = True
    try:
        result = loradeck("datasets", "check", write(tmp_path / "rows.jsonl", [{"text": "one"}]))
    finally:
        data_lane.paused = False
    assert (result.code, "is cancelled" in result.err) == (1, True)
    assert result.out.splitlines() == [
        "Stopped after 1,200 rows, of which 30 cannot be used.",
        "✕ Empty answers: 30",
        "    row 7: output has no answer: it is empty",
        "    and 29 more",
    ]


def test_without_a_worker_it_says_so(
    loradeck: Command, tmp_path: Path, data_lane: DataLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_WAIT_SECONDS", 0)
    data_lane.paused = True
    try:
        result = loradeck("datasets", "check", write(tmp_path / "rows.jsonl", [{"text": "one"}]), "--json")
    finally:
        data_lane.paused = False
    assert (result.code, "no worker is running" in result.json["error"]["message"]) == (1, True)


def _with_a_worker(get: Any) -> Any:
    """The lane of the tests has no heartbeat."""

    def answer(client: Client, path: str, **params: Any) -> Any:
        return {"worker": {"alive": True}} if path == "/health" else get(client, path, **params)

    return answer
