"""A weight as a quantised base model computes with it, made some rows at a time: quantised, and dequantised again.

The same bytes as bitsandbytes makes of the whole weight: blocks of 64 values are quantised by themselves; where their
scales are quantised too, these are gathered first, since the mean of all of them is subtracted. Rows that are not whole
blocks are taken all at once: the kernel for CPUs (bitsandbytes 0.50) then gives values that depend on the shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from worker.capabilities import import_bitsandbytes
from worker.training.quantization import Quantization

QUANTISED_BLOCK = 64  # values with one scale, in 4 bits
_NESTED_BLOCK = 256


@dataclass(slots=True)
class Requantized:
    """Takes a weight's rows (out, in) one after the other, then gives them back in any order, in `dtype` as trained."""

    quantization: Quantization
    dtype: torch.dtype  # of the weights when they are quantised, and of what is computed with
    _packed: list[torch.Tensor] = field(default_factory=list)
    _scales: list[torch.Tensor] = field(default_factory=list)

    def take(self, weight: torch.Tensor) -> None:
        """Quantise the next rows, fp32."""
        bnb = import_bitsandbytes()
        if self.quantization.load_in_8bit:
            packed, scales, _ = bnb.functional.int8_vectorwise_quant(weight.to(self.dtype).to(torch.float16))
        else:
            packed, scales = torch.ops.bitsandbytes.quantize_4bit.default(
                weight.to(self.dtype), QUANTISED_BLOCK, self.quantization.quant_type, torch.uint8
            )
        self._packed.append(packed)
        self._scales.append(scales)

    def close(self) -> None:
        """All rows were taken: quantise their scales, where that is how they are held."""
        if self.quantization.load_in_8bit or not self.quantization.double_quant:
            return
        functional = import_bitsandbytes().functional
        scales = torch.cat(self._scales)
        offset = scales.mean()
        held, state = functional.quantize_blockwise(scales - offset, blocksize=_NESTED_BLOCK)
        restored = functional.dequantize_blockwise(held, state) + offset
        self._scales = list(restored.split([len(each) for each in self._scales]))

    def give(self, number: int, shape: tuple[int, ...]) -> torch.Tensor:
        """The rows that were taken as the `number`th, dequantised. They are forgotten."""
        functional: Any = import_bitsandbytes().functional
        packed, scales = self._packed[number], self._scales[number]
        self._packed[number] = self._scales[number] = torch.empty(0)
        if self.quantization.load_in_8bit:
            whole: torch.Tensor = functional.int8_vectorwise_dequant(packed, scales)
            return whole
        restored: torch.Tensor = torch.ops.bitsandbytes.dequantize_4bit.default(
            packed, scales.float(), QUANTISED_BLOCK, self.quantization.quant_type, shape, self.dtype
        )
        return restored
