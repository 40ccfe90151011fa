"""Blocks of tensors on their way from one file to another: read ahead, written behind, and seen onto the disk."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import torch

from worker.artifacts.merge_plan import Target
from worker.artifacts.tensors import ShardFile, read_into

_AHEAD = 8  # blocks that are read before they are needed, and as many that wait to be written
_BUFFER_BYTES = 2 * 1024**2  # the smallest that is kept to be used again
_SYNCED_BYTES = 128 * 1024**2  # are brought to the disk at a time, while the next ones are computed


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of a target's source; a vector or a tensor that nobody changes is one column."""

    target: Target
    first: int
    rows: int
    row_elements: int

    @property
    def begin(self) -> int:
        return self.first * self.row_elements

    @property
    def elements(self) -> int:
        return self.rows * self.row_elements


class Pipeline:
    """A thread that reads ahead, one that writes behind, and one that sees it all onto the disk."""

    def __init__(self) -> None:
        self._stack, self._files = ExitStack(), _Files()
        self._stack.callback(self._files.close)  # once nobody reads any more
        self._reading, self._writing, self._syncing = (
            self._stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix=name))
            for name in ("read", "write", "sync")
        )
        self._free: SimpleQueue[torch.Tensor] = SimpleQueue()
        self._behind: deque[Future[None]] = deque()
        self._syncs: list[Future[None]] = []
        self._unsynced = 0
        self._wide = torch.empty(0)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def read(self, blocks: Sequence[Block]) -> Iterator[tuple[Block, torch.Tensor]]:
        """The blocks' bytes in their order, some read ahead."""
        ahead: deque[Future[torch.Tensor]] = deque()
        coming = iter(blocks)
        for block in blocks:
            while len(ahead) < _AHEAD and (following := next(coming, None)) is not None:
                ahead.append(self._reading.submit(self._read_block, following))
            yield block, ahead.popleft().result()

    def _read_block(self, block: Block) -> torch.Tensor:
        source = block.target.source
        size = 0 if source.dtype is None else source.dtype.itemsize
        raw = self.take(block.elements * size)
        read_into(self._files.descriptor(source.file), source.offset + block.begin * size, raw)
        return raw

    def take(self, count: int) -> torch.Tensor:
        """Memory for so many bytes, from what was used before where that is large enough."""
        try:
            while (kept := self._free.get_nowait()).untyped_storage().nbytes() < count:
                pass  # too small, and not kept
        except Empty:
            return torch.empty(max(count, _BUFFER_BYTES), dtype=torch.uint8)[:count]
        return kept.as_strided((count,), (1,), 0)

    def widen(self, block: Block, raw: torch.Tensor) -> torch.Tensor:
        """The block's rows in fp32, in memory that the next block takes."""
        if self._wide.numel() < block.elements:
            self._wide = torch.empty(block.elements)
        wide = self._wide[: block.elements]
        source = block.target.source
        wide.copy_(raw if source.dtype is None else raw.view(source.dtype))
        self._free.put(raw)
        return wide.view(block.rows, block.row_elements)

    @contextmanager
    def writing(self, path: Path, shard: Sequence[Target]) -> Iterator[ShardFile]:
        """A file for the shard; it is on the disk, and closed, where the block ends well."""
        file = ShardFile(path, {target.name: (target.dtype, target.shape) for target in shard})
        try:
            yield file
            self._settle()
            file.sync()
        finally:
            self._writing.submit(lambda: None).result()  # nobody writes any more
            self._syncing.submit(file.close).result()

    def write(self, file: ShardFile, block: Block, raw: torch.Tensor) -> None:
        """Write a block's bytes soon; waits where many wait already. Raises: OSError of one before it."""
        begin = block.begin * block.target.dtype.itemsize
        self._behind.append(self._writing.submit(self._write_block, file, block.target.name, begin, raw))
        if len(self._behind) > _AHEAD:
            self._behind.popleft().result()

    def _write_block(self, file: ShardFile, name: str, begin: int, raw: torch.Tensor) -> None:
        file.write(name, begin, raw)
        self._unsynced += raw.numel()
        self._free.put(raw)
        if self._unsynced > _SYNCED_BYTES:
            self._unsynced = 0
            self._syncs.append(self._syncing.submit(file.sync))

    def _settle(self) -> None:
        while self._behind:
            self._behind.popleft().result()
        while self._syncs:
            self._syncs.pop().result()


class _Files:
    """Descriptors of the files that are read from."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}

    def descriptor(self, path: Path) -> int:
        if path not in self._open:
            self._open[path] = os.open(path, os.O_RDONLY)
            os.posix_fadvise(self._open[path], 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return self._open[path]

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
