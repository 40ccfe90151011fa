"""Packing: sequences of up to `max_length` tokens, each filled with several rows that attention keeps apart."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
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
from worker.training.pack_plan import pack
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
