"""Which tensors a merged model has, where the bytes of each come from, and what the adapter does to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from app.core.errors import MergeError
from worker.artifacts.adapter_tensors import AdapterTensors, NotStreamable, read_adapter
from worker.artifacts.changes import find_changes
from worker.artifacts.deltas import Change
from worker.artifacts.dequantized import QUANTISED_BLOCK
from worker.artifacts.skeleton import Skeleton, build_model, read_skeleton
from worker.artifacts.tensors import Stored, read_tensor

MOST_WHOLE_ELEMENTS = 2**24  # of a weight that cannot be changed some rows at a time: 64 MiB in fp32
_MOST_QUANTISED_ELEMENTS = 2**26  # of those that several threads quantise beside each other: 32 MiB in 4 bits


@dataclass(frozen=True, slots=True)
class Target:
    """A tensor of the merged model. `quantised`: its source is held in few bits when the adapter is trained."""

    name: str
    source: Stored
    dtype: torch.dtype
    change: Change | None = None
    quantised: bool = False
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def bytes(self) -> int:
        return self.source.elements * self.dtype.itemsize

    @property
    def whole(self) -> bool:
        """Whether all its rows are needed at once, as where blocks of values that are quantised go on over rows."""
        quantised_whole = self.quantised and (self.transposed or self.shape[-1] % QUANTISED_BLOCK != 0)
        return quantised_whole or (self.change is not None and self.change.whole)

    @property
    def takes_memory(self) -> bool:
        """Whether so much is held of it that it is better merged while no other such one is."""
        return self.whole or (self.quantised and self.source.elements > _MOST_QUANTISED_ELEMENTS)


@dataclass(frozen=True, slots=True)
class Plan:
    """Of a merge that is streamed. A shard's targets stand in the order in which their sources lie."""

    skeleton: Skeleton
    shards: list[list[Target]]
    vocabulary: int
    untied: bool  # since the adapter changes only one of embeddings and head, which had shared their weight

    @property
    def bytes(self) -> int:
        return sum(target.bytes for shard in self.shards for target in shard)


def make_plan(base: Path, adapter: Path, dtype: torch.dtype, *, quantised: bool) -> Plan:
    """Raises: NotStreamable where not everything is known to be dealt with; MergeError, ModelLoadError."""
    found = read_adapter(adapter)
    skeleton = read_skeleton(build_model(base), base)
    changes = dict(find_changes(skeleton, found))
    vocabulary = _check_replaced(skeleton, found)
    few_bits = skeleton.quantised() if quantised else frozenset()
    _refuse_unknown(skeleton, changes, quantised=quantised)
    placed = [(source, Target(name, source, dtype)) for name, source in skeleton.carried.items()]
    apart = _told_apart(skeleton, found, changes)
    for name in [*skeleton.stored, *sorted(apart - skeleton.stored.keys())]:
        if name in skeleton.tied and name not in apart:
            continue
        target = _target(skeleton, found, changes, name, dtype)
        target = replace(target, quantised=name in few_bits and name not in found.replaced)
        _refuse_too_large(target)
        held = skeleton.stored.get(name) or skeleton.stored[skeleton.tied[name]]
        placed.append((held, replace(target, name=skeleton.named.get(name, name))))
    return Plan(skeleton, _in_shards(placed), vocabulary, bool(apart))


def require_finite(name: str, exact: torch.Tensor, rounded: torch.Tensor) -> None:
    """Raises: MergeError. A sum finds out in one pass whether the values need to be looked at one by one."""
    suspect = rounded.is_floating_point() and not torch.isfinite(rounded.sum(dtype=torch.float32))
    if not suspect or torch.isfinite(rounded).all():
        return
    if torch.isfinite(exact).all():
        told = str(rounded.dtype).removeprefix("torch.")
        raise MergeError(f"{name} holds values that do not fit into {told}.", advice="Merge in bf16 instead.")
    raise MergeError(
        f"{name} is not finite: base model or adapter holds values that are no numbers.",
        advice="Merge an earlier checkpoint, if its losses were still finite.",
    )


def _refuse_unknown(skeleton: Skeleton, changes: dict[str, Change], *, quantised: bool) -> None:
    """Raises: NotStreamable for a change of what transformers stacks or splits, or where it might be quantised."""
    for name in changes:
        if name not in skeleton.stored and name not in skeleton.tied:
            raise NotStreamable(f"transformers makes {name} of other tensors while it loads the model")
    if skeleton.carried and quantised:
        raise NotStreamable(f"transformers converts {next(iter(skeleton.carried))} while it loads the model")


def _target(
    skeleton: Skeleton, found: AdapterTensors, changes: dict[str, Change], name: str, dtype: torch.dtype
) -> Target:
    held = skeleton.stored.get(name) or skeleton.stored[skeleton.tied[name]]
    source = found.replaced.get(name, held)
    if held.dtype is None or source.dtype is None:
        raise NotStreamable(f"{name} is of type {source.dtype_name}")
    cast = name in skeleton.parameters and held.dtype.is_floating_point
    return Target(
        name, source, dtype if cast else source.dtype, changes.get(name), transposed=skeleton.is_transposed(name)
    )


def _in_shards(placed: list[tuple[Stored, Target]]) -> list[list[Target]]:
    """One for each file of the base model, in whose order of tensors they are read."""
    shards: dict[Path, list[tuple[int, Target]]] = {}
    for held, target in placed:
        shards.setdefault(held.file, []).append((held.offset, target))
    return [[t for _, t in sorted(shard, key=lambda each: each[0])] for _, shard in sorted(shards.items())]


def _check_replaced(skeleton: Skeleton, found: AdapterTensors) -> int:
    """How many words the merged model has. Raises: NotStreamable, MergeError."""
    embeddings, head = _vocabulary_weights(skeleton)
    for name, tensor in found.replaced.items():
        held = skeleton.stored.get(name) or skeleton.stored.get(skeleton.tied.get(name, ""))
        if held is None:
            raise NotStreamable(f"the base model has no tensor {name}")
        if name in (embeddings, head) and tensor.shape[1:] == held.shape[1:]:
            _refuse_fewer(name, tensor.shape[0], held.shape[0])
        elif tensor.shape != held.shape:
            raise NotStreamable(
                f"{name} is {list(held.shape)} in the base model and {list(tensor.shape)} in the adapter"
            )
    words = {name: _rows(skeleton, found, name) for name in (embeddings, head) if name is not None}
    if len(set(words.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in words.items())
        raise MergeError(f"The adapter leaves embeddings and head with different vocabularies: {told}.")
    return words[embeddings]


def _vocabulary_weights(skeleton: Skeleton) -> tuple[str, str | None]:
    """The parameters with a row for each word."""
    names = {id(module): name for name, module in skeleton.model.named_modules()}
    head = skeleton.model.get_output_embeddings()
    head_name = f"{names[id(head)]}.weight" if id(head) in names else None
    return f"{names[id(skeleton.model.get_input_embeddings())]}.weight", head_name


def _refuse_fewer(name: str, words: int, had: int) -> None:
    if words < had:
        raise MergeError(f"The adapter's {name} has {words} words, the base model {had}: a vocabulary never shrinks.")


def _rows(skeleton: Skeleton, found: AdapterTensors, name: str) -> int:
    """Of embeddings or head once merged; one that shares the other's weight has its rows."""
    other = skeleton.tied.get(name)
    if name in found.replaced:
        return found.replaced[name].shape[0]
    if other is not None:
        return _rows(skeleton, found, other)
    return skeleton.stored[name].shape[0]


def _told_apart(skeleton: Skeleton, found: AdapterTensors, changes: dict[str, Change]) -> frozenset[str]:
    """Tied parameters that the adapter gives another weight than the ones they are tied to."""
    return frozenset(n for n, other in skeleton.tied.items() if _differ(found, changes, n, other))


def _differ(found: AdapterTensors, changes: dict[str, Change], name: str, other: str) -> bool:
    if name in changes or other in changes:
        return True
    if name in found.replaced and other in found.replaced:
        return not torch.equal(read_tensor(found.replaced[name]), read_tensor(found.replaced[other]))
    return name in found.replaced or (other in found.replaced and found.is_copied(other))


def _refuse_too_large(target: Target) -> None:
    if target.whole and target.source.elements > MOST_WHOLE_ELEMENTS:
        raise NotStreamable(f"{target.name} cannot be changed in parts, and has {target.source.elements:,} values")
