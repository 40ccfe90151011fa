"""A merge in memory, by peft, of what is not known to be streamed rightly: four bytes for each parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from worker.artifacts.merge_plan import require_finite
from worker.artifacts.saving import save_model
from worker.training.adapters import load_adapter
from worker.training.model import Hardware, load_base_model
from worker.training.quantization import Quantization, copy_dequantized

_CPU = Hardware(torch.device("cpu"), torch.float32)


def merge_through_peft(base: Path, adapter: Path, quantization: Quantization | None, trained: torch.dtype) -> Any:
    """Base and adapter, added in fp32; with a quantization, onto the base quantised from weights of type `trained`.

    Raises: ModelLoadError.
    """
    model: Any = load_base_model(base, _CPU).eval()
    if quantization is not None:
        copy_dequantized(load_base_model(base, Hardware(_CPU.device, trained), quantization), model)
    return load_adapter(model, adapter).merge_and_unload()


def write_rounded(model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype) -> None:
    """Round once, and save. Raises: MergeError that names the weight which does not fit into `dtype`."""
    for name, parameter in model.named_parameters():
        require_finite(name, parameter.data, parameter.data.to(dtype))
    save_model(model, tokenizer, folder, dtype)
