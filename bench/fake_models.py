"""Whole models of any size as fake tensors, which have shapes and no contents: built as the engine would train them."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import bnb as quantised_lora
from peft.tuners.lora.layer import Linear as LoraLinear
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from app.core.jobs.spec import TrainingSpec
from bench.as_cuda import InEightBits, Unpacked
from worker.training.adapters import add_lora

_BITS = {4: 4.126953125, 8: 8.0}  # of a weight: NF4's blocks of 64 have a scale of 8 bits, 256 of them one of 32


class QuantisedLinear(torch.nn.Linear):
    """A linear module whose weight takes the bytes that bitsandbytes gives it."""

    bits = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            function = Unpacked if self.bits == 4 else InEightBits
            return function.apply(x.to(torch.bfloat16), self.out_features)


class EightBitLinear(QuantisedLinear):
    bits = 8


def build_on_meta(config: dict[str, Any], spec: TrainingSpec) -> Any:
    """The model without memory: its base in bfloat16, what is trained in float32."""
    dtype = torch.float32 if spec.method == "full" else torch.bfloat16
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=dtype)
        if spec.method != "full":
            model = add_lora(model, spec, "simulated")
        if spec.method == "qlora":
            _quantise(model, EightBitLinear if spec.load_in_8bit else QuantisedLinear)
    if spec.gradient_checkpointing is True:
        model.activation_checkpointing_enable({"use_reentrant": False})
        if spec.method != "full":
            model.enable_input_require_grads()
    return model.train()


def _quantise(model: Any, kind: type[QuantisedLinear]) -> None:
    """Adapters are attached before: peft knows bitsandbytes' modules by their class."""
    head = model.get_output_embeddings()
    adapted = quantised_lora.Linear4bit if kind.bits == 4 else quantised_lora.Linear8bitLt
    for name, module in model.named_modules():
        if type(module) is torch.nn.Linear and module is not head and ".lora_" not in name:
            module.__class__ = kind
            size = round(module.weight.numel() * _BITS[kind.bits] / 8) + 4 * module.out_features * (kind.bits == 8)
            packed = torch.empty(size, dtype=torch.uint8, device="meta")
            module.weight = torch.nn.Parameter(packed, requires_grad=False)
        elif type(module) is LoraLinear and not isinstance(module.get_base_layer(), Conv1D):
            module.__class__ = adapted


def swap_in_fakes(model: Any) -> None:
    """Give every parameter and buffer on the meta device a fake twin on the CPU, a shared one the same twin."""
    twins: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                twin = torch.nn.Parameter(_fake(parameter), requires_grad=parameter.requires_grad)
                module._parameters[name] = twins.setdefault(id(parameter), twin)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _fake(buffer)


def unpacked_weight(module: Any) -> torch.Tensor:
    """In the place of peft's `dequantize_module_weight`."""
    if isinstance(module, QuantisedLinear):
        return torch.empty(module.out_features, module.in_features, dtype=torch.bfloat16)
    return module.weight


def _fake(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
