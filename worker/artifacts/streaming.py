"""A planned merge, streamed: rows are read ahead, changed in fp32, rounded once and written behind, all side by side.

Memory is that of a few blocks and one weight's A and B, whatever the size of the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from worker.artifacts.dequantized import Requantized
from worker.artifacts.merge_plan import Plan, Target, does_not_fit
from worker.artifacts.pipeline import Block, Pipeline
from worker.artifacts.tensors import ShardFile
from worker.base_models.checks import INDEX_FILE, SINGLE_FILE
from worker.training.quantization import Quantization

_EVEN_ROWS = 32
_BLOCK_ELEMENTS = 2**19  # 2 MiB in fp32: what is computed with stays in a processor's cache


@dataclass(frozen=True, slots=True)
class Trained:
    """How quantised weights were held while the adapter was trained."""

    quantization: Quantization
    dtype: torch.dtype


def stream(plan: Plan, folder: Path, trained: Trained | None, check_stop: Callable[[], None]) -> None:
    """Write the weights and their index, all of it on the disk at the end.

    `trained` tells what the quantised ones among the sources are to be made of. `check_stop` is called between tensors.
    Raises: MergeError where a tensor's values do not fit into its type; OSError.
    """
    names = _file_names(len(plan.shards))
    with Pipeline() as pipeline:
        blocks = pipeline.read([block for shard in plan.shards for target in shard for block in _blocks(target)])
        for name, shard in zip(names, plan.shards, strict=True):
            with pipeline.writing(folder / name, shard) as file, torch.inference_mode():
                for target in shard:
                    check_stop()
                    _merge_target(target, blocks, pipeline, file, trained)
    if len(names) > 1:
        _write_index(plan, folder, names)


def _file_names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE_FILE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _write_index(plan: Plan, folder: Path, names: Sequence[str]) -> None:
    weights = {target.name: name for name, shard in zip(names, plan.shards, strict=True) for target in shard}
    index = {"metadata": {"total_size": plan.bytes}, "weight_map": dict(sorted(weights.items()))}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _blocks(target: Target) -> Iterator[Block]:
    shape = target.shape
    by_row = len(shape) > 1 and (target.change is not None or target.quantised)
    rows = shape[0] if by_row else target.source.elements
    width = target.source.elements // max(rows, 1) if by_row else 1
    at_once = rows if target.whole else _rows_at_once(width)
    for first in range(0, rows, at_once):
        yield Block(target, first, min(at_once, rows - first), width)


def _rows_at_once(width: int) -> int:
    """A multiple of some dozens: products of an odd number of rows were seen to round otherwise than whole ones."""
    rows = max(1, _BLOCK_ELEMENTS // max(width, 1))
    return rows - rows % _EVEN_ROWS if rows > _EVEN_ROWS else rows


def _merge_target(
    target: Target, blocks: Iterator[tuple[Block, torch.Tensor]], pipeline: Pipeline, file: ShardFile,
    trained: Trained | None,
) -> None:  # fmt: skip
    own = list(_blocks(target))
    if target.change is None and not target.quantised and target.dtype == target.source.dtype:
        for block in own:
            _, raw = next(blocks)
            pipeline.write(file, block, raw)
        return
    if target.change is not None:
        target.change.load()
    held = trained if target.quantised else None
    weights = _requantized(own, blocks, pipeline, held) if held else _read(own, blocks, pipeline)
    for block, weight in weights:
        if target.change is not None:
            target.change.apply(weight, block.first)
        raw = pipeline.take(block.elements * target.dtype.itemsize)
        rounded = raw.view(target.dtype).copy_(weight.reshape(-1))
        _require_finite(target, rounded)
        pipeline.write(file, block, raw)
    if target.change is not None:
        target.change.free()


def _read(
    own: Sequence[Block], blocks: Iterator[tuple[Block, torch.Tensor]], pipeline: Pipeline
) -> Iterator[tuple[Block, torch.Tensor]]:
    """Blocks with their rows in fp32, in memory that the next ones take."""
    for block in own:
        _, raw = next(blocks)
        yield block, pipeline.widen(block, raw)


def _requantized(
    own: Sequence[Block], blocks: Iterator[tuple[Block, torch.Tensor]], pipeline: Pipeline, trained: Trained
) -> Iterator[tuple[Block, torch.Tensor]]:
    """As `_read`, of what the quantised base computes with: all rows are quantised before the first comes back."""
    held = Requantized(trained.quantization, trained.dtype)
    transposed = own[0].target.transposed
    for _, weight in _read(own, blocks, pipeline):
        held.take(weight.T.contiguous() if transposed else weight)
    held.close()
    for number, block in enumerate(own):
        shape = (block.rows, block.row_elements)
        restored = held.give(number, shape[::-1] if transposed else shape).float()
        yield block, restored.T.contiguous() if transposed else restored


def _require_finite(target: Target, values: torch.Tensor) -> None:
    """Raises: MergeError. A sum finds out in one pass whether the values need to be looked at one by one."""
    suspect = values.is_floating_point() and not torch.isfinite(values.sum(dtype=torch.float32))
    if suspect and not torch.isfinite(values).all():
        raise does_not_fit(target.name, target.dtype)
