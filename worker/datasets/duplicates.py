"""Rows that say the same as an earlier one: found by hashes, 16 bytes a row."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from app.core.datasets.formats import Normalised
from app.core.datasets.report import Duplicate

NAMED = 10
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_HASH_BYTES = 8  # of a million rows two that differ have the same with a chance of 3 in 10**8


class Duplicates:
    """Takes rows in their order. Rows are the same where training reads the same of them."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._numbers = array("Q")

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: int, row: Normalised) -> None:
        """One row that can be used, by its number from 1."""
        digest = hashlib.blake2b(_ENCODER.encode(row).encode(), digest_size=_HASH_BYTES).digest()
        self._hashes.append(int.from_bytes(digest, "little"))
        self._numbers.append(number)

    def find(self) -> tuple[int, list[Duplicate]]:
        """How many rows repeat an earlier one, and the first of them, each with the first row that says the same."""
        groups, firsts = self._groups()
        repeats = np.flatnonzero(firsts[groups] != np.arange(len(groups)))
        named: list[Duplicate] = [
            {"row": self._numbers[int(index)], "of": self._numbers[int(firsts[groups[index]])]}
            for index in repeats[:NAMED]
        ]
        return len(repeats), named

    def count_twins(self, held_out: Collection[int]) -> int:
        """How many of the rows with these indices, from 0, say the same as a row that is not among them."""
        groups, firsts = self._groups()
        held = groups[np.fromiter(held_out, np.int64, len(held_out))]
        of_all, of_held = (np.bincount(each, minlength=len(firsts)) for each in (groups, held))
        return int((of_all[held] > of_held[held]).sum())

    def _groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Each row's group of equal rows, and each group's first row, as indices."""
        hashes = np.frombuffer(self._hashes, dtype=np.uint64) if self._hashes else np.empty(0, np.uint64)
        _, firsts, groups = np.unique(hashes, return_index=True, return_inverse=True)
        return groups.astype(np.int64), firsts.astype(np.int64)
