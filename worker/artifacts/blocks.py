"""Some rows of a tensor at a time, and the memory that a thread takes them through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from worker.artifacts.merge_plan import Target
from worker.artifacts.shard_file import PAGE, page_aligned

_EVEN_ROWS = 32
_BLOCK_ELEMENTS = 2**19  # 2 MiB in fp32: what is computed with stays in a processor's cache


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of a tensor; a vector, or a tensor that nobody changes, is one column."""

    first: int
    rows: int
    row_elements: int

    @property
    def begin(self) -> int:
        return self.first * self.row_elements

    @property
    def elements(self) -> int:
        return self.rows * self.row_elements


def blocks_of(target: Target) -> Iterator[Block]:
    """All its rows, one block after the other."""
    by_row = len(target.shape) > 1 and (target.change is not None or target.quantised)
    rows = target.shape[0] if by_row else target.source.elements
    width = target.source.elements // max(rows, 1) if by_row else 1
    at_once = rows if target.whole else _rows_at_once(width)
    for first in range(0, rows, at_once):
        yield Block(first, min(at_once, rows - first), width)


def _rows_at_once(width: int) -> int:
    """A multiple of some dozens: products of an odd number of rows were seen to round otherwise than whole ones."""
    rows = max(1, _BLOCK_ELEMENTS // max(width, 1))
    return rows - rows % _EVEN_ROWS if rows > _EVEN_ROWS else rows


class Scratch:
    """A thread's memory for one block: as it is read, in fp32, and as it is written. The next block takes it again."""

    def __init__(self) -> None:
        self._read, self._wide, self._written = page_aligned(0), torch.empty(0), page_aligned(0)

    def to_read(self, count: int) -> torch.Tensor:
        """So many bytes."""
        if len(self._read) < count:
            self._read = page_aligned(count)
        return self._read[:count]

    def to_widen(self, block: Block) -> torch.Tensor:
        """The block's rows, fp32."""
        if len(self._wide) < block.elements:
            self._wide = torch.empty(block.elements)
        return self._wide[: block.elements].view(block.rows, block.row_elements)

    def to_write(self, count: int, place: int) -> torch.Tensor:
        """So many bytes, as far behind a page's begin as their place in the file is."""
        if len(self._written) < count + PAGE:
            self._written = page_aligned(count + PAGE)
        return self._written[place % PAGE : place % PAGE + count]
