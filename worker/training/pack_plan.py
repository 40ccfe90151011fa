"""Which rows share a pack: from their lengths alone, without torch."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import numpy as np


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
