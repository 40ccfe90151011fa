"""Columns mapped by hand become a known format's fields."""

from __future__ import annotations

import pytest

from app.core.datasets.columns import check_columns, named, parse_columns, rename
from app.core.errors import InvalidInput


def test_pairs_are_field_and_column() -> None:
    assert parse_columns(["prompt=Q = ?", "", "completion=answer"]) == {"prompt": "Q = ?", "completion": "answer"}


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("prompt", "does not name a field and a column"),
        ("prompt=", "does not name a field and a column"),
        ("=question", "maps to no known field; known: conversations, chosen"),
        ("question=prompt", "maps to no known field"),
        ("output=b", "maps a second column to output"),
    ],
)
def test_a_pair_that_cannot_be_used_is_named(pair: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_columns(["output=a", pair])
    (fault,) = caught.value.faults
    assert fault.field == "column"
    assert fault.message.startswith(f"{pair!r} {message}")


def test_a_mapped_column_takes_the_fields_place() -> None:
    row = {"prompt": "old", "question": "Q", "note": 1}
    assert rename(row, {"prompt": "question"}) == {"prompt": "Q", "note": 1}
    assert rename(row, {"prompt": "note", "completion": "prompt"}) == {
        "prompt": 1,
        "completion": "old",
        "question": "Q",
    }
    assert rename(row, {"prompt": "gone"}) == {"question": "Q", "note": 1}


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    check_columns({"question": "Q"}, {"prompt": "question"})
    with pytest.raises(InvalidInput, match="column: the first row has no 'ask'; its fields are 'question'"):
        check_columns({"question": "Q"}, {"prompt": "ask"})


def test_of_many_and_long_fields_some_are_named() -> None:
    assert named({}) == "none"
    text = named({"x" * 500: 1} | {str(n): 1 for n in range(100)})
    assert len(text) < 250
    assert text.endswith(", …")
