"""Peak memory of a training step of any size on any machine: the real model classes and the engine's own loss and
attention run on fake tensors, which have shapes and no contents, while every live storage is counted.

    python -m bench.vram_simulation [--points 12] [--method lora|qlora]

Models of two and three layers are simulated; all layers being alike, the difference of the two is what a layer costs.
What CUDA does otherwise than the CPU is set right: dropout keeps a mask of bytes. A 4-bit weight is stood in for by a
module that unpacks it for each use, as bitsandbytes does. The table compares the plan's closed form with the result,
on settings drawn at random, always the same ones. Exits with 1 where one is off by more than 2.5 %.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoConfig, AutoModelForCausalLM

from app.core.jobs.spec import TrainingSpec
from app.core.planning.architecture import read_architecture
from app.core.planning.memory import Batch, LoraStep, Loss, peak_of_lora
from app.core.planning.trainable import count_trainable, targeted
from worker.training.adapters import add_lora
from worker.training.attention import attention_per_row
from worker.training.losses import _passing_through, chunked_loss

LAYERS = (2, 3)
TOLERANCE = 0.025
_CONFIGS = Path(__file__).parents[1] / "tests" / "fixtures" / "configs"
_MODELS = ("llama-3-8b", "llama-3.2-1b", "mistral-7b-v0.1", "qwen2.5-7b")
_SIZES = {"gpt2": "n_layer"}


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def see(self, tensor: Any) -> None:
        """Count the tensor's storage, once, for as long as it lives."""
        if not isinstance(tensor, torch.Tensor):
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self.live += size
        self.peak = max(self.peak, self.live)
        self._known[key] = weakref.ref(storage, lambda _: self._forget(key, size))

    def _forget(self, key: int, size: int) -> None:
        if self._known.pop(key, None) is not None:
            self.live -= size

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in tree_iter(result):
            self.see(value)
        return result


class _Unpack(torch.autograd.Function):
    """y = Wx where W is unpacked to bfloat16 for the forward and again for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, packed: torch.Tensor, outputs: int) -> torch.Tensor:
        ctx.save_for_backward(packed)
        ctx.shape = (outputs, x.shape[-1])
        return x @ torch.empty(ctx.shape, dtype=torch.bfloat16).t()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient @ torch.empty(ctx.shape, dtype=torch.bfloat16), None, None


class QuantisedLinear(torch.nn.Linear):
    """A linear module whose weight takes the bytes of NF4 with double quantisation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            y = _Unpack.apply(x.to(torch.bfloat16), self.weight, self.out_features)
        return y if self.bias is None else y + self.bias


def simulate(config: dict[str, Any], spec: TrainingSpec, labelled: int) -> int:
    """Peak bytes of the second optimizer step on a full flattened batch of rows of `max_length`; no CUDA context.

    `labelled` tokens of the batch have labels.
    """
    name = _SIZES.get(config["model_type"], "num_hidden_layers")
    small = [_simulate_layers({**config, name: layers}, spec, labelled) for layers in LAYERS]
    return small[0] + (small[1] - small[0]) * (config[name] - LAYERS[0])


def _simulate_layers(config: dict[str, Any], spec: TrainingSpec, labelled: int) -> int:
    model = _build(config, spec)
    with FakeTensorMode(allow_non_fake_inputs=True), _dropout_as_on_cuda():
        _swap_in_fakes(model)
        counter = LiveBytes()
        for tensor in (*model.parameters(), *model.buffers()):
            counter.see(tensor)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, foreach=True)
        batch = _batch(spec)
        with attention_per_row(model), counter:
            for _ in range(2):
                counter.peak = counter.live
                with torch.autocast("cpu", torch.bfloat16):
                    loss = _chunked_loss(model, batch, labelled)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                del loss
    return counter.peak


def _build(config: dict[str, Any], spec: TrainingSpec) -> Any:
    """The model on the meta device as the engine would train it: base in bfloat16, what is trained in float32."""
    dtype = torch.float32 if spec.method == "full" else torch.bfloat16
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=dtype)
        if spec.method == "qlora":
            _quantise(model)
        if spec.method != "full":
            model = add_lora(model, spec, "simulated")
    if spec.gradient_checkpointing is True:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if spec.method != "full":
            model.enable_input_require_grads()
    return model.train()


def _quantise(model: Any) -> None:
    head = model.get_output_embeddings()
    for module in model.modules():
        if type(module) is torch.nn.Linear and module is not head:
            module.__class__ = QuantisedLinear
            packed = torch.empty(round(module.weight.numel() * 4.127 / 8), dtype=torch.uint8, device="meta")
            module.weight = torch.nn.Parameter(packed, requires_grad=False)


def _swap_in_fakes(model: Any) -> None:
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


def _fake(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")


@contextmanager
def _dropout_as_on_cuda() -> Iterator[None]:
    """On CUDA dropout keeps a byte for each element, on the CPU a float."""
    before: Callable[..., torch.Tensor] = torch.nn.Dropout.forward

    def forward(self: torch.nn.Dropout, x: torch.Tensor) -> torch.Tensor:
        return torch.native_dropout(x, self.p, True)[0] if self.training and self.p else x

    torch.nn.Dropout.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.Dropout.forward = before  # type: ignore[method-assign]


def _batch(spec: TrainingSpec) -> dict[str, Any]:
    rows, length = spec.per_device_train_batch_size, spec.max_length
    return {
        "input_ids": torch.zeros(1, rows * length, dtype=torch.long),
        "position_ids": torch.arange(length).repeat(rows)[None],
        "row_lengths": (length,) * rows,
    }


def _chunked_loss(model: Any, batch: dict[str, Any], labelled: int) -> torch.Tensor:
    """The engine's loss; which positions have labels is told by numbers, since fake labels have no values."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = base.get_output_embeddings()
    with _passing_through(head):
        hidden = model(**batch, logits_to_keep=torch.arange(labelled), use_cache=False).logits[0]
    return chunked_loss(hidden, head.weight, torch.zeros(labelled, dtype=torch.long))


def predict(config: dict[str, Any], spec: TrainingSpec, labelled: int) -> int:
    """The closed form's peak of the same step."""
    architecture = read_architecture(config)
    step = LoraStep(
        targeted(architecture, spec),
        spec.r,
        count_trainable(architecture, spec).total,
        parameter_bytes=4,
        optimizer_bytes=8,
        dropout=spec.lora_dropout > 0,
        checkpointing=spec.gradient_checkpointing is True,
        quantised=spec.method == "qlora",
        loss=Loss.CHUNKED,
    )
    batch = Batch(spec.per_device_train_batch_size, spec.max_length, labelled, padded=False)
    return peak_of_lora(architecture, batch, step).allocated


def draw_point(chance: random.Random, method: str) -> tuple[str, TrainingSpec, int]:
    """A model, what to train on it and how, and how many labels a batch has."""
    spec = TrainingSpec(
        base_model="simulated",
        dataset="simulated",
        method=method,
        r=chance.choice([8, 16, 64]),
        target_modules=chance.choice(["all-linear", ["q_proj", "v_proj"]]),
        lora_dropout=chance.choice([0, 0.05]),
        optim="adamw_torch",
        max_length=chance.choice([256, 512, 1024, 2048]),
        per_device_train_batch_size=chance.choice([1, 2, 4]),
        gradient_checkpointing=chance.choice([True, False]),
    )
    tokens = spec.per_device_train_batch_size * spec.max_length
    return chance.choice(_MODELS), spec, int(chance.choice([0.4, 0.7]) * tokens)


def compare(method: str, points: int) -> list[float]:
    """Print each point's row and return the closed form's relative errors."""
    chance, errors = random.Random(5), []
    print(f"{'model':16} {'method':6} {'batch':>9} {'r':>3} {'targets':10} {'ckpt':5} {'simulated':>12} {'error':>7}")
    for _ in range(points):
        name, spec, labelled = draw_point(chance, method)
        config = json.loads((_CONFIGS / f"{name}.json").read_text(encoding="utf-8"))
        simulated = simulate(config, spec, labelled)
        errors.append(predict(config, spec, labelled) / simulated - 1)
        batch = f"{spec.per_device_train_batch_size} x {spec.max_length}"
        targets = spec.target_modules if isinstance(spec.target_modules, str) else "q, v"
        checkpointing = "on" if spec.gradient_checkpointing is True else "off"
        print(
            f"{name:16} {method:6} {batch:>9} {spec.r:3} {targets:10} {checkpointing:5} "
            f"{simulated / 2**30:8.2f} GiB {errors[-1]:+7.2%}",
            flush=True,
        )
    return errors


def main() -> None:
    warnings.simplefilter("ignore", FutureWarning)
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--method", choices=["lora", "qlora"], action="append")
    arguments = parser.parse_args()
    errors = [e for method in arguments.method or ["lora", "qlora"] for e in compare(method, arguments.points)]
    worst, median = max(map(abs, errors)), statistics.median(map(abs, errors))
    print(json.dumps({"points": len(errors), "median_error": median, "worst_error": worst}))
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
