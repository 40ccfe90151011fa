"""Base and adapter as peft puts them together, for a merged model to be held against: answers, and weight by weight."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from peft.utils.other import AuxiliaryTrainingWrapper

from worker.artifacts.arithmetic import Source, compute_in_fp32
from worker.artifacts.tensors import DTYPES, list_tensors, read_tensor
from worker.base_models.checks import check_weights
from worker.training.adapters import WEIGHTS, load_adapter
from worker.training.model import Hardware, load_base_model
from worker.training.quantization import Quantization

_CPU = torch.device("cpu")
_PREFIX = "base_model.model."


@dataclass(slots=True)
class Reference:
    """`model` is peft's; `source` says whether a quantised base is computed with or the one in the files."""

    model: Any
    source: Source

    @torch.inference_mode()
    def logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(seq, vocabulary) of base and adapter; `input_ids` are (1, seq)."""
        logits: torch.Tensor = self.model(input_ids=input_ids, use_cache=False).logits[0]
        return logits

    def base_logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The same without the adapter."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Careful, disabling adapter layers with bias")  # these stay as trained
            with self.model.disable_adapter():
                return self.logits(input_ids)

    @contextmanager
    def on_other_base(self) -> Iterator[None]:
        """Inside, the base is the one in the files where it was the dequantised one, or the other way round."""
        self.source.dequantised = not self.source.dequantised
        try:
            yield
        finally:
            self.source.dequantised = not self.source.dequantised

    @torch.no_grad()
    def merged(self, name: str) -> torch.Tensor:
        """What peft merges into the parameter of this name, in fp32."""
        path, _, leaf = name.rpartition(".")
        module = self.model.get_base_model().get_submodule(path)
        if isinstance(module, LoraLayer):
            return self._merged(path, module, leaf)
        if isinstance(module, AuxiliaryTrainingWrapper):
            module = module.modules_to_save["default"]
        parameter: torch.Tensor = module.get_parameter(leaf)
        return parameter.data.float()

    def _merged(self, path: str, layer: Any, leaf: str) -> torch.Tensor:
        """By the layer's own merge, which leaves it as it was before."""
        base = layer.get_base_layer()
        kept = {each: parameter.data for each, parameter in base.named_parameters(recurse=False)}
        for each, parameter in base.named_parameters(recurse=False):
            widened = self.source.weight_of(path, base) if each == "weight" else parameter.data.float()
            parameter.data = widened.clone(memory_format=torch.contiguous_format)
        layer.merge(safe_merge=True)
        merged: torch.Tensor = getattr(base, leaf).data
        layer.merged_adapters.clear()
        for each, data in kept.items():
            getattr(base, each).data = data
        return merged


def load_reference(base: Path, adapter: Path, quantization: Quantization | None, dtype: torch.dtype) -> Reference:
    """Base and adapter; with a quantization, on the base that is quantised from weights of `dtype`.

    Weights are mapped from their files where these hold one type. Raises: ModelLoadError.
    """
    plain = load_base_model(base, Hardware(_CPU, _type_of(base))).eval()
    twins = {}
    if quantization is not None:
        quantised = load_base_model(base, Hardware(_CPU, dtype), quantization)
        twins = {n: m for n, m in quantised.named_modules() if type(m).__name__ in ("Linear4bit", "Linear8bitLt")}
    tuned = load_adapter(plain, adapter).eval()
    _keep_whole(tuned, adapter)
    source = Source(twins)
    compute_in_fp32(tuned.get_base_model(), source)
    return Reference(tuned, source)


def _type_of(base: Path) -> torch.dtype:
    names = {t.dtype_name for file in check_weights(base).files for t in list_tensors(file).values()}
    types = {DTYPES[name] for name in names if name in DTYPES and DTYPES[name].is_floating_point}
    return types.pop() if len(types) == 1 else torch.float32


def _keep_whole(tuned: Any, adapter: Path) -> None:
    """What the adapter brings in fp32 beside LoRA, peft has rounded to the base's type: it is to count as trained."""
    parameters = dict(tuned.named_parameters(remove_duplicate=False))
    for key, stored in list_tensors(adapter / WEIGHTS).items():
        path, _, leaf = key.rpartition(".")
        for name in (f"{path}.modules_to_save.default.{leaf}", f"{path}.base_layer.{leaf}", key):
            if "lora_" not in key and name in parameters:
                parameters[name].data = read_tensor(stored)
                break
