"""Rows that repeat an earlier one, and held-out rows that are also among the rest."""

from __future__ import annotations

from worker.datasets.duplicates import NAMED, Duplicates


def gathered(*texts: str) -> Duplicates:
    duplicates = Duplicates()
    for number, text in enumerate(texts, start=1):
        duplicates.add(number, {"text": text})
    return duplicates


def test_each_repeat_is_counted_and_named_with_the_first_such_row() -> None:
    assert gathered("a", "b", "a", "c", "b", "a").find() == (
        3, [{"row": 3, "of": 1}, {"row": 5, "of": 2}, {"row": 6, "of": 1}],
    )  # fmt: skip
    count, named = gathered(*["a"] * 50).find()
    assert (count, len(named)) == (49, NAMED)
    assert gathered().find() == (0, [])


def test_twins_are_held_out_rows_that_are_also_among_the_rest() -> None:
    rows = gathered("a", "b", "a", "b", "c")
    assert rows.count_twins([0]) == 1
    assert rows.count_twins([0, 2]) == 0  # alike, but both held out
    assert rows.count_twins([0, 1, 3]) == 1
    assert rows.count_twins([]) == 0
