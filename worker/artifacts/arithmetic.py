"""A model that computes in fp32 from weights that stay as they lie on disk: mapped, 16-bit or quantised.

A module's parameters are widened while it computes and no longer, so that a model takes little more memory than its
largest module does in fp32, beside pages of its files that the system may drop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from transformers.pytorch_utils import Conv1D

from worker.training.quantization import dequantized

_CHUNK_ELEMENTS = 2**25  # of a large plain linear layer, such as the head, widened at a time


@dataclass(slots=True)
class Source:
    """What weights are computed with: `twins` are quantised modules by the name of the module that they stand for.

    While `dequantised` is off, the weights are the ones of the files.
    """

    twins: Mapping[str, Any] = field(default_factory=dict)
    dequantised: bool = True

    def weight_of(self, name: str, module: Any) -> torch.Tensor:
        """In fp32, as the module stores it."""
        twin = self.twins.get(name) if self.dequantised else None
        if twin is None:
            weight: torch.Tensor = module.weight.data
            return weight.float()
        restored: torch.Tensor = dequantized(twin).float()
        return restored.T if isinstance(module, Conv1D) else restored


def compute_in_fp32(model: Any, source: Source) -> None:
    """Have every module below widen its parameters. Once all are there: a copy would widen the original's."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            _widen_base(name, module, source)
        elif type(module) is torch.nn.Embedding:
            module.register_forward_hook(lambda _module, _inputs, output: output.float())
        elif _is_large(name, module, source):
            module.forward = partial(_linear, module)
        elif any(True for _ in module.parameters(recurse=False)):
            _widen_own(name.removesuffix(".base_layer"), module, source)


def _is_large(name: str, module: Any, source: Source) -> bool:
    """Whether it is a plain linear layer whose weight is better not widened at once."""
    plain = type(module) is torch.nn.Linear and not name.endswith(".base_layer") and name not in source.twins
    return plain and module.weight.numel() > _CHUNK_ELEMENTS


def _widen_base(name: str, layer: Any, source: Source) -> None:
    """LoRA's forward, DoRA's too, reads the weight of the module that it wraps."""
    base, kept = layer.get_base_layer(), []
    if isinstance(base, torch.nn.Embedding):
        return

    def widen(_module: Any, _inputs: Any) -> None:
        kept.append(base.weight.data)
        base.weight.data = source.weight_of(name, base)
        base.is_wide = True

    def narrow(_module: Any, _inputs: Any, _output: Any) -> None:
        base.weight.data, base.is_wide = kept.pop(), False

    layer.register_forward_pre_hook(widen)
    layer.register_forward_hook(narrow)


def _widen_own(name: str, module: Any, source: Source) -> None:
    kept: list[dict[str, torch.Tensor]] = []

    def widen(_module: Any, _inputs: Any) -> None:
        own = dict(module.named_parameters(recurse=False))
        kept.append({each: parameter.data for each, parameter in own.items()})
        for each, parameter in own.items():
            if each == "weight" and not getattr(module, "is_wide", False):
                parameter.data = source.weight_of(name, module)
            elif parameter.is_floating_point():
                parameter.data = parameter.data.float()

    def narrow(_module: Any, _inputs: Any, _output: Any) -> None:
        for each, data in kept.pop().items():
            getattr(module, each).data = data

    module.register_forward_pre_hook(widen)
    module.register_forward_hook(narrow)


def _linear(module: Any, values: torch.Tensor) -> torch.Tensor:
    """x · Wᵀ + b, some rows of W at a time."""
    rows = max(1, _CHUNK_ELEMENTS // module.weight.shape[1])
    parts = [torch.nn.functional.linear(values, part.float()) for part in module.weight.split(rows)]
    product = torch.cat(parts, dim=-1)
    return product if module.bias is None else product + module.bias.float()
