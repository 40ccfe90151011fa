"""Packing: sequences of up to `max_length` tokens, each filled with several rows that attention keeps apart."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from app.core.errors import Fault, InvalidInput
from app.core.jobs.spec import TrainingSpec
from worker.training.attention import isolation_fault
from worker.training.batches import Collator, FlatCollator, choose_collator
from worker.training.data import EncodedRow
from worker.training.encoded import Sequences
from worker.training.pairs import Pairs

logger = logging.getLogger(__name__)

Pack = tuple[EncodedRow, ...]
Whole = NDArray[np.int64]


class Packs(Sequence[Pack]):
    """Rows as packs. The same lengths make the same packs; a row is read when its pack is asked for."""

    def __init__(self, rows: Sequence[EncodedRow], lengths: Sequence[int], capacity: int) -> None:
        pack_of_row = np.asarray(pack(lengths, capacity))
        self._rows = rows
        self._capacity = capacity
        self._members = np.argsort(pack_of_row, kind="stable")
        sizes = np.bincount(pack_of_row)
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        filled = np.bincount(pack_of_row, weights=np.asarray(lengths, dtype=np.float64))
        self.lengths: list[int] = filled.astype(np.int64).tolist()

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Pack: ...

    @overload
    def __getitem__(self, index: slice) -> list[Pack]: ...

    def __getitem__(self, index: int | slice) -> Pack | list[Pack]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return tuple(self._rows[int(row)] for row in self._members[self._starts[at] : self._starts[at + 1]])

    @property
    def rows_per_pack(self) -> float:
        """On average."""
        return len(self._members) / len(self)

    @property
    def density(self) -> float:
        """The share of the places that hold a token."""
        return sum(self.lengths) / (len(self) * self._capacity)

    def summary(self) -> dict[str, Any]:
        """The figures for the job's summary."""
        return {
            "packs": len(self),
            "rows_per_pack": round(self.rows_per_pack, 2),
            "pack_density": round(self.density, 4),
        }


class PackCollator:
    """Packs to one batch, all their rows end to end; see FlatCollator."""

    def __call__(self, packs: Iterable[Pack]) -> dict[str, Any]:
        return FlatCollator()(list(chain.from_iterable(packs)))


def arrange_rows(
    model: Any, rows: Sequences | Pairs, spec: TrainingSpec, pad_token_id: int
) -> tuple[Sequences | Pairs | Packs, Collator | FlatCollator]:
    """What the Trainer draws from, rows or packs, and what makes batches of rows. Raises: InvalidInput."""
    if spec.packing and isinstance(rows, Sequences):
        return pack_rows(model, rows, spec.max_length), FlatCollator()
    return rows, choose_collator(model, pad_token_id, spec.max_length)


def pack_rows(model: Any, rows: Sequences, max_length: int) -> Packs:
    """The rows in packs of up to `max_length` tokens. Raises: InvalidInput where the model does not keep them apart."""
    fault = isolation_fault(model, max_length)
    if fault:
        raise InvalidInput([Fault("packing", f"would let examples see each other: {fault}", "Turn packing off.")])
    packs = Packs(rows, rows.lengths.tolist(), max_length)
    logger.info(
        "%d rows in %d packs: %.2f rows in each, %.1f %% of the places filled",
        len(rows), len(packs), packs.rows_per_pack, 100 * packs.density,
    )  # fmt: skip
    return packs


def pack(lengths: Sequence[int], capacity: int) -> array[int]:
    """The pack of each row, by best fit from the longest row to the shortest: O(n log n), rows of a length in order.

    Raises: ValueError for a row that fits in no pack.
    Source: Ding et al. 2024, "Fewer truncations improve language modeling", arXiv:2404.10830.
    """
    packs, spaces, count = array("q", bytes(8 * len(lengths))), _Spaces(capacity), 0
    for row in np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist():
        length = lengths[row]
        if not 0 < length <= capacity:
            raise ValueError(f"a row of {length} tokens fits in no pack of {capacity}")
        space = spaces.least(length)
        if space is None:
            packs[row], space, count = count, capacity, count + 1
        else:
            packs[row] = spaces.take(space)
        spaces.put(space - length, packs[row])
    return packs


class _Spaces:
    """Packs by the space that is left in them, in a tree over spaces: each call walks from a leaf to the root."""

    def __init__(self, capacity: int) -> None:
        self._leaves = 1 << capacity.bit_length()
        self._any = bytearray(2 * self._leaves)  # whether a pack has one of the spaces below this node
        self._packs: dict[int, list[int]] = {}

    def put(self, space: int, pack: int) -> None:
        """A full pack is forgotten."""
        if not space:
            return
        self._packs.setdefault(space, []).append(pack)
        for node in self._path(space):
            self._any[node] = 1

    def take(self, space: int) -> int:
        """The pack with this space that was put last."""
        packs = self._packs[space]
        taken = packs.pop()
        if not packs:
            for node in self._path(space):
                self._any[node] = node < self._leaves and (self._any[2 * node] or self._any[2 * node + 1])
        return taken

    def least(self, wanted: int) -> int | None:
        """The smallest space of at least `wanted` that a pack has."""
        node = self._leaves + wanted
        while not self._any[node]:
            while node & 1:  # a right child, or the root: nothing lies further right below its parent
                node >>= 1
            if not node:
                return None
            node += 1
        while node < self._leaves:
            node = 2 * node if self._any[2 * node] else 2 * node + 1
        return node - self._leaves

    def _path(self, space: int) -> Iterator[int]:
        node = self._leaves + space
        while node:
            yield node
            node >>= 1
