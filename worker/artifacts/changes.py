"""Which of a model's weights an adapter adds to, each held against the model's own modules and shapes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers.pytorch_utils import Conv1D

from worker.artifacts.adapter_tensors import AdapterTensors, NotStreamable, Parts
from worker.artifacts.deltas import Added, Change, LowRank
from worker.artifacts.skeleton import Skeleton


def find_changes(skeleton: Skeleton, found: AdapterTensors) -> Iterator[tuple[str, Change]]:
    """By the parameter's name. Raises: NotStreamable for a module that the base model has not, or of another kind."""
    for name, parts in found.lora.items():
        try:
            module = skeleton.model.get_submodule(name)
        except AttributeError as error:
            raise NotStreamable(f"the base model has no module {name}") from error
        kinds = (torch.nn.Embedding,) if "lora_embedding_A" in parts.tensors else (torch.nn.Linear, Conv1D)
        if type(module) not in kinds:
            raise NotStreamable(f"{name} is a {type(module).__name__}")
        change = _low_rank(name, parts, transposed=not isinstance(module, torch.nn.Linear))
        _check_shape(name, change, tuple(module.weight.shape))
        yield f"{name}.weight", change
        if "lora_B.bias" in parts.tensors:
            if module.bias is None:
                raise NotStreamable(f"{name} has no bias, its lora_B has")
            yield f"{name}.bias", Added(parts.tensors["lora_B.bias"], parts.scaling)


def _low_rank(name: str, parts: Parts, *, transposed: bool) -> LowRank:
    """Conv1D is changed whole, so that each digit is peft's; an embedding may be too large for that."""
    tensors = parts.tensors
    whole = transposed and "lora_embedding_A" not in tensors
    embedding = {"lora_embedding_A", "lora_embedding_B"}
    if embedding <= tensors.keys():
        a, b, rest = tensors["lora_embedding_A"], tensors["lora_embedding_B"], tensors.keys() - embedding
    else:
        if not {"lora_A.weight", "lora_B.weight"} <= tensors.keys():
            raise NotStreamable(f"{name} has only {', '.join(sorted(tensors))}")
        a, b, rest = tensors["lora_A.weight"], tensors["lora_B.weight"], set()
    if rest:
        raise NotStreamable(f"{name} has {', '.join(sorted(tensors))}")
    return LowRank(a, b, parts.scaling, transposed, whole, tensors.get("lora_magnitude_vector"))


def _check_shape(name: str, change: LowRank, shape: tuple[int, ...]) -> None:
    outputs, inputs = reversed(shape) if change.transposed else shape
    if change.a.shape[1:] != (inputs,) or change.b.shape != (outputs, change.a.shape[0]):
        raise NotStreamable(f"{name} is {list(shape)}, its A {list(change.a.shape)} and its B {list(change.b.shape)}")
    magnitude = change.magnitude
    if magnitude is not None and magnitude.elements != outputs:
        raise NotStreamable(f"{name} has {outputs} outputs and {magnitude.elements} magnitudes")
