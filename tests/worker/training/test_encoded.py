"""Sequences come back from their files as they were written."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from worker.training.data import IGNORED_LABEL, EncodedRow
from worker.training.encoded import Sequences, TokenWriter, lengths_of

pytestmark = pytest.mark.model


def make_rows(count: int) -> list[EncodedRow]:
    source, rows = random.Random(5), []
    for _ in range(count):
        ids = [source.randrange(2**31) for _ in range(source.randrange(1, 20))]
        labels = [token if source.random() < 0.5 else IGNORED_LABEL for token in ids]
        rows.append(EncodedRow(ids, labels, len(ids) + source.randrange(3)))
    return rows


def write(folder: Path, rows: list[EncodedRow], *, of_row: int = 1) -> Sequences:
    with TokenWriter(folder) as writer:
        for index, row in enumerate(rows):
            writer.add(index // of_row, row)
    return Sequences.open(folder)


def test_sequences_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = make_rows(50)
    sequences = write(tmp_path, rows)
    assert list(sequences) == rows
    assert list(sequences[10:13]) == rows[10:13]
    assert sequences[-1] == rows[-1]
    assert sequences.lengths.tolist() == lengths_of(sequences) == lengths_of(rows)
    assert sequences.trained_tokens == sum(row.trained_tokens for row in rows)


def test_all_sequences_of_a_row_are_held_out_together(tmp_path: Path) -> None:
    rows = make_rows(20)
    train, held_out = write(tmp_path, rows, of_row=2).split([3, 9])
    assert list(held_out) == [rows[i] for i in (6, 7, 18, 19)]
    assert list(train) == [row for i, row in enumerate(rows) if i not in (6, 7, 18, 19)]
    assert held_out.trained_tokens == sum(rows[i].trained_tokens for i in (6, 7, 18, 19))
    assert list(held_out.by_length()) == sorted(held_out, key=lambda row: len(row.input_ids))


def test_no_sequences_at_all_are_none(tmp_path: Path) -> None:
    sequences = write(tmp_path, [])
    assert list(sequences) == []
    assert [len(each) for each in sequences.split([0])] == [0, 0]
    assert sequences.trained_tokens == 0
