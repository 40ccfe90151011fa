"""A planned merge, streamed: each thread takes a tensor, and rows of it are read, changed in fp32, rounded and written.

While one thread waits for the disk, another computes. Memory is that of a few blocks and of each thread's A and B,
whatever the size of the model.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from worker.artifacts.blocks import Block, Scratch, blocks_of
from worker.artifacts.dequantized import Requantized
from worker.artifacts.merge_plan import Plan, Target, require_finite
from worker.artifacts.shard_file import ShardFile
from worker.artifacts.tensors import read_into
from worker.base_models.checks import INDEX_FILE, SINGLE_FILE
from worker.training.quantization import Quantization

_MOST_THREADS = 4  # that compute: a disk takes no more than they make
_WAITING_THREADS = 2  # beside them, for those that wait for the disk


@dataclass(frozen=True, slots=True)
class Trained:
    """How quantised weights were held while the adapter was trained."""

    quantization: Quantization
    dtype: torch.dtype


class _Memory(threading.local):
    """Each thread's own."""

    def __init__(self) -> None:
        self.scratch = Scratch()


def stream(plan: Plan, folder: Path, trained: Trained | None, check_stop: Callable[[], None]) -> None:
    """Write the weights and their index, all of it on the disk at the end.

    `trained` tells what the quantised ones among the sources are to be made of. `check_stop` is called between tensors.
    Raises: MergeError where a tensor's values do not fit into its type; OSError.
    """
    names, memory, one_at_a_time = _file_names(len(plan.shards)), _Memory(), threading.Lock()

    def merge(target: Target, file: ShardFile) -> None:
        if target.takes_memory:
            with one_at_a_time:
                _merge_target(target, file, trained, Scratch())
        else:
            _merge_target(target, file, trained, memory.scratch)

    with ExitStack() as opened, _threads() as pool:
        files = [
            opened.enter_context(_open(folder / name, shard)) for name, shard in zip(names, plan.shards, strict=True)
        ]
        work = [
            pool.submit(merge, each, file) for file, shard in zip(files, plan.shards, strict=True) for each in shard
        ]
        for each in work:
            check_stop()
            each.result()
    if len(names) > 1:
        _write_index(plan, folder, names)


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """As many as keep processor and disk busy. Each computes alone: what two share, one of them waits for."""
    allowed = torch.get_num_threads()
    count = min(allowed, _MOST_THREADS) + _WAITING_THREADS
    pool = ThreadPoolExecutor(count, "merge", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(allowed)


def _open(path: Path, shard: Sequence[Target]) -> ShardFile:
    return ShardFile(path, {target.name: (target.dtype, target.shape) for target in shard})


def _file_names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE_FILE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _write_index(plan: Plan, folder: Path, names: Sequence[str]) -> None:
    weights = {target.name: name for name, shard in zip(names, plan.shards, strict=True) for target in shard}
    index = {"metadata": {"total_size": plan.bytes}, "weight_map": dict(sorted(weights.items()))}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


@torch.inference_mode()
def _merge_target(target: Target, file: ShardFile, trained: Trained | None, scratch: Scratch) -> None:
    with target.source.file.open("rb", buffering=0) as source:
        os.posix_fadvise(source.fileno(), target.source.offset, target.source.bytes, os.POSIX_FADV_SEQUENTIAL)
        if target.change is None and not target.quantised and target.dtype == target.source.dtype:
            _copy(target, source.fileno(), file, scratch)
            return
        if target.change is not None:
            target.change.load()
        held = trained if target.quantised else None
        rows = _requantized(target, source.fileno(), scratch, held) if held else _read(target, source.fileno(), scratch)
        for block, weight in rows:
            if target.change is not None:
                target.change.apply(weight, block.first)
            place = file.place(target.name, block.begin * target.dtype.itemsize)
            raw = scratch.to_write(block.elements * target.dtype.itemsize, place)
            require_finite(target.name, weight, raw.view(target.dtype).copy_(weight.reshape(-1)))
            file.write(place, raw)
        if target.change is not None:
            target.change.free()


def _copy(target: Target, source: int, file: ShardFile, scratch: Scratch) -> None:
    """What stays as it is is only carried over."""
    size = target.dtype.itemsize
    for block in blocks_of(target):
        place = file.place(target.name, block.begin * size)
        raw = scratch.to_write(block.elements * size, place)
        read_into(source, target.source.offset + block.begin * size, raw)
        file.write(place, raw)


def _read(target: Target, source: int, scratch: Scratch) -> Iterator[tuple[Block, torch.Tensor]]:
    """Blocks with their rows in fp32, in memory that the next ones take."""
    stored = target.source
    if stored.dtype is None:
        raise ValueError(f"tensors of type {stored.dtype_name} cannot be read")
    for block in blocks_of(target):
        raw = scratch.to_read(block.elements * stored.dtype.itemsize)
        read_into(source, stored.offset + block.begin * stored.dtype.itemsize, raw)
        wide = scratch.to_widen(block)
        wide.view(-1).copy_(raw.view(stored.dtype))
        yield block, wide


def _requantized(
    target: Target, source: int, scratch: Scratch, trained: Trained
) -> Iterator[tuple[Block, torch.Tensor]]:
    """As `_read`, of what the quantised base computes with: all rows are quantised before the first comes back."""
    held, blocks = Requantized(trained.quantization, trained.dtype), []
    for block, weight in _read(target, source, scratch):
        held.take(weight.T.contiguous() if target.transposed else weight)
        blocks.append(block)
    held.close()
    for number, block in enumerate(blocks):
        shape = (block.rows, block.row_elements)
        restored = held.give(number, shape[::-1] if target.transposed else shape).float()
        yield block, restored.T.contiguous() if target.transposed else restored
