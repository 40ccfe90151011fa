"""Peak memory of a training step of any size on any machine: the real model classes and the engine's own loss and
attention run on fake tensors, which have shapes and no contents, while every live storage is counted.

Models of two and three layers are simulated; all layers being alike, the difference of the two is what a layer costs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from accelerate.utils import convert_outputs_to_fp32
from peft.tuners.lora import dora
from torch._subclasses import FakeTensorMode

from app.core.jobs.spec import TrainingSpec
from app.core.planning.logits import Loss
from bench.as_cuda import computed_as_on_cuda
from bench.fake_models import build_on_meta, swap_in_fakes, unpacked_weight
from bench.live_bytes import LiveBytes
from worker.training.attention import attention_per_row
from worker.training.losses import _passing_through, chunked_loss

LAYERS = (2, 3)
_LAYERS_NAME = {"gpt2": "n_layer"}


def simulate(config: dict[str, Any], spec: TrainingSpec, loss: Loss = Loss.CHUNKED, labelled: float = 1.0) -> int:
    """Peak bytes of a later optimizer step on a full batch of rows of `max_length`; no CUDA context.

    A share of `labelled` tokens of the batch have labels.
    """
    name = _LAYERS_NAME.get(config["model_type"], "num_hidden_layers")
    fewer, more = (Step({**config, name: layers}, spec, loss, labelled).run() for layers in LAYERS)
    return max(fewer[phase] + (more[phase] - fewer[phase]) * (config[name] - LAYERS[0]) for phase in fewer)


class Step:
    """One simulated run of two steps. The peaks of its phases are kept apart, since each grows in its own way."""

    def __init__(self, config: dict[str, Any], spec: TrainingSpec, loss: Loss, labelled: float) -> None:
        self._spec, self._loss = spec, loss
        self._labelled = round(labelled * _tokens(spec))
        self._model = build_on_meta(config, spec)
        window = getattr(self._model.config, "sliding_window", None)
        self._narrow = window is not None and window < spec.max_length
        self.counter = LiveBytes()
        self._peaks: dict[str, int] = {}

    def run(self) -> dict[str, int]:
        """Peak bytes by phase: forward, head, last layer, first layer, embeddings, optimizer."""
        spec, model = self._spec, self._model
        unpacks = patch.object(dora, "dequantize_module_weight", unpacked_weight)
        with FakeTensorMode(allow_non_fake_inputs=True), computed_as_on_cuda(), unpacks:
            swap_in_fakes(model)
            for tensor in (*model.parameters(), *model.buffers()):
                self.counter.see(tensor)
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(trained, foreach=spec.optim == "adamw_torch", fused="fused" in spec.optim)
            flat = self._model.config._attn_implementation == "sdpa" and not self._narrow
            batch = _batch(spec, flat)
            if self._loss is not Loss.PLAIN:
                model.forward = convert_outputs_to_fp32(model.forward)
            self._watch_layers()
            with attention_per_row(model) if flat else nullcontext(), self.counter:
                _make_state(optimizer, trained)
                for _ in range(spec.gradient_accumulation_steps):
                    self._backward(batch)
                optimizer.step()
                self._end_of("optimizer")
        return self._peaks

    def _backward(self, batch: dict[str, Any]) -> None:
        self.counter.peak = self.counter.live
        with torch.autocast("cpu", torch.bfloat16):
            value, _held = _loss(self._model, batch, self._loss, self._labelled)
        self._end_of("forward")
        self.counter.adds_in_place = True
        value.backward()
        self.counter.adds_in_place = False
        self._end_of("embeddings")

    def _watch_layers(self) -> None:
        """A layer's output has its gradient once what is behind the layer has gone backward."""
        base = self._model.get_base_model() if hasattr(self._model, "get_base_model") else self._model
        decoder = base.get_decoder()
        layers = list(getattr(decoder, "layers", None) or decoder.h)
        names = {id(layers[-1]): "head", id(layers[0]): "middle" if len(layers) > 2 else "last layer"}
        names |= {id(layers[-2]): "last layer"}
        for layer in layers:
            layer.register_forward_hook(partial(self._mark, names[id(layer)]))
        layers[0].register_forward_pre_hook(self._mark_input, with_kwargs=True)

    def _mark(self, phase: str, _layer: Any, _inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.requires_grad:
            hidden.register_hook(lambda _: self._end_of(phase))

    def _mark_input(self, _layer: Any, inputs: Any, named: dict[str, Any]) -> None:
        hidden = inputs[0] if inputs else named["hidden_states"]
        if hidden.requires_grad and not hidden.is_leaf:
            hidden.register_hook(lambda _: self._end_of("first layer"))

    def _end_of(self, phase: str) -> None:
        self._peaks[phase] = max(self._peaks.get(phase, 0), self.counter.peak)
        self.counter.peak = self.counter.live


def _tokens(spec: TrainingSpec) -> int:
    return spec.per_device_train_batch_size * (2 if spec.task == "dpo" else 1) * spec.max_length


def _batch(spec: TrainingSpec, flat: bool) -> dict[str, Any]:
    """Rows, of a pair each side as one: end to end, or side by side where the engine cannot keep them apart then."""
    rows, length = _tokens(spec) // spec.max_length, spec.max_length
    if not flat:
        return {"input_ids": torch.zeros(rows, length, dtype=torch.long)}
    return {
        "input_ids": torch.zeros(1, rows * length, dtype=torch.long),
        "position_ids": torch.arange(length).repeat(rows)[None],
        "row_lengths": (length,) * rows,
    }


def _make_state(optimizer: Any, trained: list[Any]) -> None:
    """A step with gradients of zeros leaves the optimizer's state behind, as a run's first step does."""
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def _loss(model: Any, batch: dict[str, Any], loss: Loss, labelled: int) -> tuple[torch.Tensor, Any]:
    """The engine's loss, and what is held until its backward pass is over.

    Which positions have labels is told by numbers, since fake labels have no values.
    """
    if loss is Loss.PLAIN:
        outputs = model(**batch, labels=batch["input_ids"], use_cache=False)
        return outputs.loss, outputs.logits
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head, targets = base.get_output_embeddings(), torch.zeros(labelled, dtype=torch.long)
    if loss is Loss.WHOLE:
        logits = model(**batch, use_cache=False).logits.flatten(0, 1)[torch.arange(labelled)]
    elif loss is Loss.AT_LABELS:
        with _first_rows(labelled):
            logits = model(**batch, use_cache=False).logits
    else:
        with _passing_through(head), _first_rows(labelled):
            hidden = model(**batch, use_cache=False).logits
        return chunked_loss(hidden, head.weight, targets), None
    return F.cross_entropy(logits.float(), targets, reduction="sum"), None


@contextmanager
def _first_rows(labelled: int) -> Iterator[None]:
    """Let the head see so many positions, as with a mask of the labelled ones."""

    def choose(hidden: torch.Tensor, _keep: Any) -> torch.Tensor:
        return hidden.flatten(0, 1)[torch.arange(labelled)]

    with ExitStack() as stack:
        for module in [each for name, each in sys.modules.items() if name.startswith("transformers.models.")]:
            if "slice_logits_to_keep" in vars(module):
                stack.enter_context(patch.object(module, "slice_logits_to_keep", choose))
        yield
