"""The model to train: where it runs, in which type, and how it is loaded from a local folder."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from app.core.errors import Fault, InvalidInput
from worker.own_code import from_folder
from worker.training.quantization import Quantization, count_elements, keep_trainable
from worker.training.tokenizer import load_error

logger = logging.getLogger(__name__)

_CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where a job runs and in which type it computes."""

    device: torch.device
    dtype: torch.dtype

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> torch.autocast:
        """What the Trainer computes in: float32 operands of matrix products are rounded to a 16-bit `dtype`."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def choose_hardware(bf16: bool | str) -> Hardware:
    """CUDA where there is one, else the CPU; bfloat16 where the GPU computes in it, else float32.

    A CPU stays with float32 unless told otherwise: without bf16 instructions it is about three times slower in bf16.
    Raises: InvalidInput where bf16 is demanded of a GPU that lacks it.
    """
    cuda = torch.cuda.is_available()
    supported = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    if bf16 is True and cuda and not supported:
        name = torch.cuda.get_device_name()
        raise InvalidInput([Fault("bf16", f"{name} does not compute in bfloat16", "Use `bf16: auto`.")])
    use_bf16 = bf16 is True or (bf16 == "auto" and supported)
    return Hardware(torch.device("cuda:0" if cuda else "cpu"), torch.bfloat16 if use_bf16 else torch.float32)


def set_threads() -> int:
    """Let torch use as many threads as this process may: a container's limit is not what torch finds by itself."""
    allowed = min(len(os.sched_getaffinity(0)), _cgroup_cpus())
    if allowed < torch.get_num_threads():
        torch.set_num_threads(allowed)
    return torch.get_num_threads()


def _cgroup_cpus() -> int:
    """Whole CPUs granted by cgroup v2, at least 1; a large number where there is no limit."""
    if not _CGROUP_CPU.is_file():
        return 1 << 20
    quota, _, period = _CGROUP_CPU.read_text().partition(" ")
    return 1 << 20 if quota == "max" else max(1, int(quota) // int(period))


def load_base_model(path: str | Path, hardware: Hardware, quantization: Quantization | None = None) -> Any:
    """The base model of a local folder, from safetensors only; code from it only where that is allowed.

    Quantised, only its linear weights are held in 4 or 8 bits. Norms, embeddings and output head stay as for LoRA in
    the hardware's type: peft's `prepare_model_for_kbit_training` would hold them in fp32 (2.1 GB more at 8B), though
    the norms compute in fp32 anyway and the loss is fp32; the rest of what it does, peft and the Trainer do themselves.
    """
    placed: dict[str, Any] = {"dtype": hardware.dtype}
    try:
        if quantization is not None:
            config = quantization.to_config(hardware.dtype)
            placed |= {"quantization_config": config, "device_map": {"": str(hardware.device)}}
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(path), use_safetensors=True, **from_folder(path), **placed
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise load_error("model", path, error) from error
    if quantization is None:
        return model.to(hardware.device)
    keep_trainable(model)
    return model


def list_linear_modules(model: Any) -> list[str]:
    """Names of the linear modules that LoRA can target, the output head left out; sorted, each once."""
    head = model.get_output_embeddings()
    linear = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear | Conv1D) and m is not head]
    return sorted({name.rpartition(".")[2] for name in linear})


def count_parameters(model: Any) -> tuple[int, int]:
    """Trainable parameters, and all of them with the adapter's; tied ones count once, 4-bit ones each."""
    sizes = [(count_elements(p), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trainable in sizes if trainable), sum(n for n, _ in sizes)
