"""Rows are read as they were written, and split the same way each time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from app.core.datasets.split import share_of
from app.core.errors import DatasetFormatError
from tests.worker.tiny import ROWS, write_rows
from worker.training.reading import messages_of, read_as, read_rows, split_rows

pytestmark = pytest.mark.model


def test_split_is_the_same_for_the_same_seed_and_loses_no_row() -> None:
    train, held_out = split_rows(100, 0.1, seed=7)
    assert (train, held_out) == split_rows(100, 0.1, seed=7)
    assert held_out != split_rows(100, 0.1, seed=8)[1]
    assert len(held_out) == 10
    assert sorted(train + held_out) == list(range(100))


@pytest.mark.parametrize(
    ("count", "fraction", "held_out"), [(2, 0.05, 1), (1, 0.5, 0), (50, 0.0, 0), (2, 0.5, 1), (3, 0.5, 2)]
)
def test_split_of_few_rows(count: int, fraction: float, held_out: int) -> None:
    train, evaluation = split_rows(count, fraction, seed=0)
    assert (len(train), len(evaluation)) == (count - held_out, held_out)


def test_no_more_rows_are_held_out_than_may_be() -> None:
    train, held_out = split_rows(1000, 0.5, seed=0, at_most=12)
    assert (len(train), len(held_out), share_of(1000, 0.5)) == (988, 12, 500)
    assert max(held_out) > 500, "they are drawn from all rows"
    assert split_rows(20, 0.1, seed=0, at_most=12) == split_rows(20, 0.1, seed=0)
    assert split_rows(20, 0, seed=0, at_most=12)[1] == []


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert list(read_rows(write_rows(tmp_path / "rows.jsonl"))) == ROWS


def test_dataset_that_changed_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(list(read_rows(path, digest))) == len(ROWS)
    path.write_text(path.read_text().replace("red", "rod", 1))
    with pytest.raises(DatasetFormatError, match="has changed since the job was queued"):
        list(read_rows(path, digest))


@pytest.mark.parametrize("line", ["{", '{"rows": []}', '{"messages": [{"role": "user"}]}', "[]"])
def test_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = write_rows(tmp_path / "rows.jsonl", ROWS[:2])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DatasetFormatError, match="row 3"):
        list(read_rows(path))


def test_only_the_chosen_rows_are_parsed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", ROWS[:4])
    path.write_text(path.read_text() + "{\n")
    assert list(read_as(path, messages_of, {3, 1})) == [ROWS[1], ROWS[3]]
    assert list(read_as(path, messages_of, set())) == []
    with pytest.raises(DatasetFormatError, match="row 5"):
        list(read_as(path, messages_of, {4}))


def test_chosen_rows_are_not_searched_for_in_a_list(tmp_path: Path) -> None:
    """Among a million rows with 50,000 chosen that would take half an hour."""

    class Unsearchable(list[int]):
        def __contains__(self, _row: object) -> bool:
            raise AssertionError("the list is searched through")

    path = write_rows(tmp_path / "rows.jsonl")
    assert list(read_as(path, messages_of, Unsearchable([3, 1]))) == [ROWS[1], ROWS[3]]
