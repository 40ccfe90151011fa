"""Parquet files are read a batch at a time; what is no Parquet, or is damaged, is said."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from app.core.datasets import lines, parquet
from app.core.datasets.faults import RowFault
from app.core.datasets.normalise import normalise
from app.core.datasets.reader import MAX_DEPTH, read_rows
from app.core.errors import DatasetFormatError
from tests.parquet import run_sql, write_parquet

USER, ANSWER = {"role": "user", "content": "Q ☃"}, {"role": "assistant", "content": "A"}
OTHER = {"role": "assistant", "content": "B"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file lies: a folder whose name a pattern or a partition would look like."""
    folder = tmp_path / "a=[b]*"
    folder.mkdir()
    return folder / "rows.parquet"


def _read(path: Path, skip: int = 0) -> list[tuple[int, Any]]:
    return [(number, row.message if isinstance(row, RowFault) else row) for number, row in read_rows(path, skip=skip)]


@pytest.mark.parametrize(
    ("row", "kind", "normalised"),
    [
        ({"messages": [USER, ANSWER]}, "messages", {"messages": [USER, ANSWER]}),
        ({"conversations": [{"from": "human", "value": "Q ☃"}, {"from": "gpt", "value": "A"}]}, "messages",
         {"messages": [USER, ANSWER]}),
        ({"text": "T"}, "text", {"text": "T"}),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}, "preference",
         {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}),
        ({"conversations": [{"from": "human", "value": "Q ☃"}], "chosen": {"from": "gpt", "value": "A"},
          "rejected": {"from": "gpt", "value": "B"}}, "preference",
         {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}),
    ],
)  # fmt: skip
def test_rows_of_each_kind(path: Path, row: dict[str, Any], kind: str, normalised: dict[str, Any]) -> None:
    write_parquet(path, [row] * 3)
    assert _read(path) == [(number, row) for number in (1, 2, 3)]
    checked = normalise(path, path.with_name("rows.jsonl"))
    assert (checked.kind, checked.rows) == (kind, 3)
    assert list(read_rows(path.with_name("rows.jsonl")))[2] == (3, normalised)


def test_turns_with_fields_that_others_lack(path: Path) -> None:
    """A column has one type, so each turn has every field of any turn, most of them null."""
    calls = [{"function": {"name": "find", "arguments": "{}"}}]
    called = {"role": "assistant", "content": None, "tool_calls": calls}
    write_parquet(path, [{"messages": [USER, called, {"role": "tool", "content": "T"}, ANSWER]}])
    checked = normalise(path, path.with_name("rows.jsonl"))
    ((_, row),) = read_rows(path.with_name("rows.jsonl"))
    assert isinstance(row, dict)
    assert checked.format == "messages"
    assert [turn["content"] for turn in row["messages"]] == ["Q ☃", '{"name": "find", "arguments": {}}', "T", "A"]


def test_answers_that_are_sometimes_whole_conversations(path: Path) -> None:
    spoken = {"from": "gpt", "value": "A", "role": None, "content": None}
    answers = {"chosen": [{**ANSWER, "from": None, "value": None}], "rejected": [{**spoken, "value": "B"}]}
    write_parquet(path, [{"prompt": "Q", **answers}, {"prompt": "Q", "chosen": [spoken], "rejected": [OTHER]}])
    assert normalise(path, path.with_name("rows.jsonl")).format == "preference"


def test_values_that_json_has_not(path: Path) -> None:
    run_sql(
        f"""COPY (SELECT DATE '2020-01-31' AS day, 1.50::DECIMAL(9, 2) AS price, 'nan'::DOUBLE AS score,
        '\\xFF'::BLOB AS image, 'a'::BLOB AS word, MAP {{1: 'x'}} AS map, [1.5::DOUBLE, NULL] AS list, 'T' AS text)
        TO '{path}' (FORMAT parquet)"""
    )
    assert _read(path) == [
        (1, {"day": "2020-01-31", "price": "1.50", "score": None, "image": {"bytes": 1}, "word": "a",
             "map": {"1": "x"}, "list": [1.5, None], "text": "T"}),
    ]  # fmt: skip


def test_faults_have_their_rows_number(path: Path) -> None:
    rows = [{"text": "T"}] * 150
    rows[99], rows[140] = {"text": " "}, {"text": "a\0b"}
    write_parquet(path, rows)
    with pytest.raises(DatasetFormatError) as caught:
        normalise(path, path.with_name("rows.jsonl"))
    assert [fault.message for fault in caught.value.faults] == [
        "row 100: text: is empty", "row 141: is not text: it holds a NUL character",
    ]  # fmt: skip


def test_what_is_nested_too_deeply_is_refused_by_its_number(path: Path) -> None:
    run_sql(f"COPY (SELECT {'[' * MAX_DEPTH}1{']' * MAX_DEPTH} AS x) TO '{path}' (FORMAT parquet)")
    assert _read(path) == [(1, "is nested too deeply")]


def test_what_is_too_long_is_refused_by_its_number(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_ROW_CHARACTERS", 1000)
    write_parquet(path, [{"x": [{"y": "a" * 500}, {"y": "b" * length}]} for length in (500, 501)])
    assert [row for _, row in _read(path)][1:] == ["is longer than 1,000 characters"]


def test_a_file_without_rows_is_empty(path: Path) -> None:
    run_sql(f"COPY (SELECT 'T' AS text LIMIT 0) TO '{path}' (FORMAT parquet)")
    assert _read(path) == []
    with pytest.raises(DatasetFormatError, match="The dataset is empty"):
        normalise(path, path.with_name("rows.jsonl"))


def test_rows_that_are_skipped_keep_the_others_numbers(path: Path) -> None:
    write_parquet(path, [{"n": n} for n in range(1, 5001)], row_group_rows=2048)
    assert _read(path, skip=4998) == [(4999, {"n": 4999}), (5000, {"n": 5000})]
    assert _read(path, skip=5000) == []
    assert [row["n"] for _, row in _read(path)] == list(range(1, 5001)), "in the file's order"


def test_no_more_than_a_batch_of_rows_is_held(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(path, [{"text": f"T{n}"} for n in range(1000)])
    fetched: list[int] = []
    fetch = parquet._fetch

    def counted(connection: Any, size: int) -> list[tuple[Any, ...]]:
        batch = fetch(connection, size)
        fetched.append(len(batch))
        return batch

    monkeypatch.setattr(parquet, "_fetch", counted)
    rows = read_rows(path)
    for number, _ in islice(rows, 200):
        assert sum(fetched) - number < parquet._BATCH_ROWS
    rows.close()
    assert fetched == [1, 2, 4, 8, 16, 32, 64, 64, 64], "the rest is not read"


def test_of_large_rows_few_are_held(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_BATCH_CHARACTERS", 1200)
    monkeypatch.setattr(parquet, "_ROW_CHARACTERS", 1)
    write_parquet(path, [{"text": "T" * (600 if n > 200 else 1)} for n in range(400)])
    fetched: list[int] = []
    fetch = parquet._fetch
    monkeypatch.setattr(parquet, "_fetch", lambda *given: fetched.append(given[1]) or fetch(*given))
    assert len(list(read_rows(path))) == 400
    assert max(fetched) == 64
    assert set(fetched[-10:-1]) == {1, 2}, "two rows are too many; the last fetch finds none"


def test_a_decompression_bomb_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_FREE_CHARACTERS", 10_000)
    query = f"COPY (SELECT 'a' AS text, repeat('b', 1000) AS more FROM range(1000)) TO '{path}' (FORMAT parquet)"
    run_sql(query)
    with pytest.raises(
        DatasetFormatError, match=r"Its rows up to (\d+) hold more than the [\d,]+ characters"
    ) as caught:
        list(read_rows(path))
    limit = 10_000 + parquet._MAX_RATIO * path.stat().st_size
    assert int(caught.value.message.split("up to ")[1].split()[0]) < limit / 1000 + 64
    run_sql(query.replace("range(1000)", "range(10)"))
    assert len(list(read_rows(path))) == 10


def test_more_rows_than_a_file_can_hold_are_refused_unread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_FREE_CHARACTERS", 10_000)
    monkeypatch.setattr(parquet, "_fetch", lambda *_: pytest.fail("it was read"))
    run_sql(f"COPY (SELECT 'a' AS text FROM range(100000)) TO '{path}' (FORMAT parquet)")
    with pytest.raises(DatasetFormatError, match=r"Its 100,000 rows are more than a file of \d+ bytes may hold"):
        list(read_rows(path))


def test_a_row_group_that_takes_too_much_memory_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parquet._CONFIG, "memory_limit", "1MB")
    write_parquet(path, [{"text": random.Random(n).randbytes(4000).hex()} for n in range(600)])
    with pytest.raises(DatasetFormatError, match=r"rows from 1 on take more memory .* smaller row groups"):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "T"}\n', "The file is not Parquet: it does not begin with PAR1."),
        (b"PARE" + b"x" * 100, "The Parquet file is encrypted."),
        (b"", "The Parquet file is damaged behind row 0: "),
        (b"PAR1", "The Parquet file is damaged behind row 0: "),
        (b"PAR1" + b"\0" * 100 + b"PAR1", "The Parquet file is damaged behind row 0: "),
    ],
)
def test_what_is_no_parquet_is_said(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DatasetFormatError) as caught:
        list(read_rows(path))
    assert caught.value.message.startswith(f"file: {message}")
    assert str(path.parent) not in caught.value.message
    assert "LINE 1" not in caught.value.message


def test_a_file_that_was_cut_or_changed_is_refused_and_nothing_worse(path: Path) -> None:
    content = write_parquet(path, [{"text": f"T{n}" * 5} for n in range(300)]).read_bytes()
    noise, outcomes = random.Random(3), set()
    for _ in range(20):
        damaged = bytearray(content[: noise.choice([len(content), noise.randrange(len(content))])])
        for _ in range(3):
            damaged[noise.randrange(4, max(len(damaged), 5)) % len(damaged)] = noise.randrange(256)
        path.write_bytes(b"PAR1" + damaged[4:])
        try:
            list(read_rows(path))
            outcomes.add("read")
        except DatasetFormatError:
            outcomes.add("refused")
    assert "refused" in outcomes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"a text", b"a\xcftext", "is not valid UTF8!"),
        (b"column", b"co\xcfumn", "Invalid unicode"),
        (b"inner", b"in\xcfer", "can't decode byte 0xcf"),
    ],
)
def test_what_is_not_utf_8_is_refused(path: Path, old: bytes, new: bytes, message: str) -> None:
    query = "SELECT 'a text' AS column, [{'inner': 1}] AS x"
    run_sql(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION uncompressed)")
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(DatasetFormatError) as caught:
        list(read_rows(path))
    assert "The Parquet file is damaged behind row 0" in caught.value.message
    assert message in caught.value.message
