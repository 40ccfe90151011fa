"""An array is read value by value, wherever the window's edge falls, and each fault has its row and place."""

from __future__ import annotations

import io
import json
import re
import tracemalloc
from typing import Any

import pytest

from app.core.datasets import json_array
from app.core.datasets.json_array import read_array
from app.core.errors import DatasetFormatError

LIMIT = 1000
VALUES: list[Any] = [
    {"a": "Ä ☃ \U0001f600", "b": [1, -2.5e-7, None, True, False]},
    {},
    [],
    'text " \\ \n ]',
    1234567890123,
    -0.5,
    1e22,
    None,
    True,
    {"a": {"b": {"c": ["]", "[", ","]}}},
    12,
]


def _read(text: str, limit: int = LIMIT) -> list[Any]:
    rows = list(read_array(io.StringIO(text), limit))
    assert [number for number, _ in rows] == list(range(1, len(rows) + 1))
    return [value for _, value in rows]


@pytest.mark.parametrize("chunk", [*range(1, 40), 100_000])
@pytest.mark.parametrize("options", [{}, {"ensure_ascii": False, "indent": 3}, {"separators": (",", ":")}], ids=str)
def test_values_are_those_of_the_whole_text_wherever_it_is_cut(
    monkeypatch: pytest.MonkeyPatch, chunk: int, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(json_array, "_CHUNK_CHARACTERS", chunk)
    assert _read(json.dumps(VALUES, **options)) == VALUES


@pytest.mark.parametrize("text", ["[]", " [ ] ", "\n[\n]\n"])
def test_an_empty_array_has_no_values(text: str) -> None:
    assert _read(text) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "Row 1 is not valid JSON: Expecting value (line 1 column 2)."),
        ("[{}", "Row 1 is not valid JSON: the file ends behind it (line 1 column 4)."),
        ("[{},\n{}\n", "Row 2 is not valid JSON: the file ends behind it (line 3 column 1)."),
        ("[{},", "Row 2 is not valid JSON: Expecting value (line 1 column 5)."),
        ("[{},]", "Row 2 is not valid JSON: Expecting value (line 1 column 5)."),
        ("[{}\n {}]", "Row 1 is not valid JSON: Expecting ',' or ']' after it (line 2 column 2)."),
        ('[{},\r\n  {"a" 1}]', "Row 2 is not valid JSON: Expecting ':' delimiter (line 2 column 8)."),
        ('[\n{},\n{"a": "b', "Row 2 is not valid JSON: Unterminated string starting at (line 3 column 7)."),
        ('[{"a": tru}]', "Row 1 is not valid JSON: Expecting value (line 1 column 8)."),
        ('[{},\n {"a": NaN}]', "Row 2 is not valid JSON: NaN is not a JSON value (line 2 column 2)."),
        ("[{}]\n[{}]", "Something follows the array's end (line 2 column 1)."),
        ("[]]", "Something follows the array's end (line 1 column 3)."),
    ],
)
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 100_000])
def test_a_broken_array_names_row_line_and_column(
    monkeypatch: pytest.MonkeyPatch, chunk: int, text: str, message: str
) -> None:
    monkeypatch.setattr(json_array, "_CHUNK_CHARACTERS", chunk)
    with pytest.raises(DatasetFormatError, match=re.escape(message) + "$"):
        _read(text)


@pytest.mark.parametrize("chunk", [1, 64, 100_000])
def test_the_length_of_a_value_is_limited(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_array, "_CHUNK_CHARACTERS", chunk)
    longest = "x" * (LIMIT - 2)
    assert _read(json.dumps([{}, longest])) == [{}, longest]
    for text in (json.dumps([{}, longest + "x"]), '[{}, "' + "x" * 5 * LIMIT):
        with pytest.raises(DatasetFormatError, match=r"Row 2 \(line 1 column 6\) is longer than 1,000 characters"):
            _read(text)


def test_a_long_array_is_never_held_whole() -> None:
    count = 40_000
    text = io.StringIO("[" + ",\n".join(json.dumps({"n": n, "text": "x" * 200}) for n in range(count)) + "]")
    tracemalloc.start()
    try:
        numbers = [value["n"] for _, value in read_array(text, LIMIT)]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert numbers == list(range(count))
    assert peak_bytes < 5 * 1024 * 1024, "the text alone has 9 MB"
