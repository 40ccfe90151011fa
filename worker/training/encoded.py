"""Encoded rows as flat arrays in files, memory-mapped: a million rows take little more memory than a hundred."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from worker.training.data import IGNORED_LABEL, EncodedRow

_IDS, _LEARNED, _INDEX = "input_ids.bin", "learned.bin", "index.bin"  # int32 and bool by token, int64 by sequence
_END, _ROW, _TOTAL, _TRAINED = range(4)  # columns of the index

Whole = NDArray[np.int64]


class TokenWriter:
    """Writes sequences one by one into the folder's files; a context manager that closes them."""

    def __init__(self, folder: Path) -> None:
        self._ids, self._learned, self._index = (folder.joinpath(name).open("wb") for name in (_IDS, _LEARNED, _INDEX))
        self._end = 0

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, *_exception: object) -> None:
        for file in (self._ids, self._learned, self._index):
            file.close()

    def add(self, row: int, sequence: EncodedRow) -> None:
        """Append a sequence that came from the dataset's row number `row`, counted from 0."""
        learned = np.asarray(sequence.labels, dtype="<i4") != IGNORED_LABEL
        self._end += len(learned)
        self._ids.write(np.asarray(sequence.input_ids, dtype="<i4").tobytes())
        self._learned.write(learned.tobytes())
        entry = [self._end, row, sequence.total_tokens, int(learned.sum())]
        self._index.write(np.asarray(entry, dtype="<i8").tobytes())


@dataclass(frozen=True, slots=True)
class _Arrays:
    input_ids: NDArray[np.int32]
    learned: NDArray[np.bool_]
    index: Whole  # (sequences, 4)


class Sequences(Sequence[EncodedRow]):
    """Sequences of one folder's files, all or some of them, in a given order; each is read when it is asked for."""

    def __init__(self, arrays: _Arrays, chosen: Whole) -> None:
        self._arrays = arrays
        self._chosen = chosen
        self._index = arrays.index

    @classmethod
    def open(cls, folder: Path) -> Sequences:
        """All that were written into the folder; it may be removed while they are in use."""
        index = _mapped(folder / _INDEX, "<i8").reshape(-1, 4)
        arrays = _Arrays(_mapped(folder / _IDS, "<i4"), _mapped(folder / _LEARNED, "bool"), index)
        return cls(arrays, np.arange(len(index)))

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> EncodedRow: ...

    @overload
    def __getitem__(self, index: slice) -> Sequences: ...

    def __getitem__(self, index: int | slice) -> EncodedRow | Sequences:
        if isinstance(index, slice):
            return self._only(self._chosen[index])
        at = int(self._chosen[index])
        span = slice(int(self._index[at - 1, _END]) if at else 0, int(self._index[at, _END]))
        ids = self._arrays.input_ids[span]
        labels = np.where(self._arrays.learned[span], ids, IGNORED_LABEL)
        return EncodedRow(ids.tolist(), labels.tolist(), int(self._index[at, _TOTAL]), int(self._index[at, _ROW]) + 1)

    def find_token(self, least: int) -> tuple[int, int] | None:
        """The first token of all that were written that is `least` or above, and its row in the dataset, from 1."""
        ids = self._arrays.input_ids
        if not len(ids) or int(ids.max()) < least:
            return None
        at = int(np.argmax(ids >= least))
        sequence = int(np.searchsorted(self._index[:, _END], at, side="right"))
        return int(ids[at]), int(self._index[sequence, _ROW]) + 1

    @property
    def lengths(self) -> Whole:
        """Tokens of each sequence."""
        return np.diff(self._index[:, _END], prepend=0)[self._chosen]

    @property
    def trained_tokens(self) -> int:
        """Labelled tokens of all of them."""
        return int(self._index[:, _TRAINED][self._chosen].sum())

    def split(self, held_out: Collection[int]) -> tuple[Sequences, Sequences]:
        """Those that do not come from the dataset's rows `held_out`, and those that do."""
        out = np.isin(self._index[:, _ROW][self._chosen], np.fromiter(held_out, np.int64, len(held_out)))
        return self._only(self._chosen[~out]), self._only(self._chosen[out])

    @property
    def places(self) -> Whole:
        """Where each lies among all that were written, counted from 0."""
        return self._chosen

    def by_length(self) -> Sequences:
        """The same, the shortest first."""
        return self.take(np.argsort(self.lengths, kind="stable"))

    def take(self, order: Whole) -> Sequences:
        """Those at these indices, in this order."""
        return self._only(self._chosen[order])

    def _only(self, chosen: Whole) -> Sequences:
        return Sequences(self._arrays, chosen)


def lengths_of(rows: Iterable[Any]) -> list[int]:
    """Tokens of each sequence, or of each pair of them, without reading them where they lie in files."""
    known: Whole | None = getattr(rows, "lengths", None)
    return [len(row.input_ids) for row in rows] if known is None else known.tolist()


def _mapped(path: Path, dtype: str) -> NDArray[Any]:
    """A file's numbers; an empty file cannot be mapped."""
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype=dtype)
