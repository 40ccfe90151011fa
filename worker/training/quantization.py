"""Frozen weights held in 4 or 8 bits by bitsandbytes, which only the jobs that need it import."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from worker.capabilities import import_bitsandbytes

_QUIET = logging.getLogger("bitsandbytes.autograd._functions")  # warns of 16-bit inputs with each product of 8 bits


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the base model's linear weights are held; embeddings, norms and the output head keep their type."""

    load_in_8bit: bool
    quant_type: str  # nf4 or fp4, where it is 4 bits
    double_quant: bool  # the 4-bit blocks' scales are quantised too

    @property
    def name(self) -> str:
        """nf4, fp4 or int8."""
        return "int8" if self.load_in_8bit else self.quant_type

    def to_config(self, dtype: torch.dtype) -> BitsAndBytesConfig:
        """As transformers takes it, with the package imported; matrix products are computed in `dtype`.

        Source: QLoRA (Dettmers et al., 2023); LLM.int8() (Dettmers et al., 2022).
        """
        import_bitsandbytes()
        if self.load_in_8bit:
            _QUIET.setLevel(logging.ERROR)
            return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quant_type,
            bnb_4bit_use_double_quant=self.double_quant,
            bnb_4bit_compute_dtype=dtype,
        )

    def to_source(self) -> str:
        """Python that makes the same configuration, for a reader who loads the base model elsewhere."""
        if self.load_in_8bit:
            return "BitsAndBytesConfig(load_in_8bit=True)"
        kind = f'bnb_4bit_quant_type="{self.quant_type}", bnb_4bit_use_double_quant={self.double_quant}'
        return f"BitsAndBytesConfig(load_in_4bit=True, {kind})"


def find_quantization(spec: Mapping[str, Any]) -> Quantization | None:
    """How the model of this spec, given as plain values, was or will be quantised; None where it is not."""
    if spec.get("method") != "qlora":
        return None
    return Quantization(spec["load_in_8bit"], spec["bnb_4bit_quant_type"], spec["bnb_4bit_use_double_quant"])


def keep_trainable(model: Any) -> None:
    """Let no 4-bit module repack its weights for its first answer, as bitsandbytes does on a CPU with bf16 products.

    The repacked ones round their scales, and no gradient flows back through them: a run would learn wrongly from its
    first eval on. Source: bitsandbytes, `Linear4bit.forward` and `matmul_4bit`.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def count_elements(parameter: torch.nn.Parameter) -> int:
    """The weights that a parameter stands for: two of 4 bits are packed into each of its elements."""
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel()) if state is None else math.prod(state.shape)


@torch.no_grad()
def copy_dequantized(quantized: Any, target: Any) -> None:
    """Set the linear weights of `target`, the same model unquantised, to what `quantized` computes with."""
    wanted = dict(target.named_modules())
    for name, module in quantized.named_modules():
        weight = dequantized(module)
        if weight is None:
            continue
        there = wanted[name]
        there.weight.copy_(weight.T if isinstance(there, Conv1D) else weight)


def dequantized(module: Any) -> Any:
    """The weight (out, in) that a quantised linear module stands for; None for any other module."""
    functional = import_bitsandbytes().functional
    kind = type(getattr(module, "weight", None)).__name__
    if kind == "Params4bit":
        return functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
    if kind == "Int8Params":
        scale = module.weight.SCB if module.state.SCB is None else module.state.SCB
        return functional.int8_vectorwise_dequant(module.weight.data, scale)
    return None
