"""What ends a run that learns nothing: weights without a gradient or that do not move, a loss gone wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from app.core.errors import JobError
from worker.training.layers import LayerWatch

_ZERO_LOSSES = 3  # logged in a row
_NAMED = 3  # tensors that a message names


@dataclass(slots=True)
class RunGuard:
    """Looks at the first steps' gradients and weights, and at each logged loss."""

    _gradients_seen: bool = False
    _moved: bool = False
    _zero_losses: int = 0
    _layers: LayerWatch | None = None  # where every weight is trained

    @property
    def counters(self) -> dict[str, Any]:
        """What a guard that goes on from here is made with; it looks at the gradients anew."""
        return {"_moved": self._moved, "_zero_losses": self._zero_losses}

    def before_optimizer(self, model: Any) -> None:
        """Raises: JobError in the first step where a trainable tensor has no gradient, or a LoRA B an all-zero one.

        Where every weight is trained: where a whole layer has none.
        """
        if self._gradients_seen:
            return
        self._gradients_seen = True
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not any(".lora_" in name for name in trainable):
            self._layers = LayerWatch(model)
            _refuse_layers(self._layers.without_gradient(), len(self._layers), "received no gradient")
            return
        _refuse([name for name, p in trainable.items() if p.grad is None], "received no gradient")
        gradients = {name: p.grad for name, p in trainable.items() if ".lora_B." in name}
        _refuse(list(_zeros(gradients)), "received a gradient of zeros")

    def after_optimizer(self, model: Any) -> None:
        """Raises: JobError where a LoRA B is still zero after the first step.

        Where every weight is trained: where a whole layer is as it was.
        """
        if self._moved:
            return
        self._moved = True
        if self._layers is not None:
            _refuse_layers(self._layers.unmoved(), len(self._layers), "stayed as they were after an optimizer step")
            return
        weights = {n: p.detach() for n, p in model.named_parameters() if ".lora_B." in n and p.requires_grad}
        _refuse(list(_zeros(weights)), "stayed zero after an optimizer step")

    def check_loss(self, loss: float, step: int) -> None:
        """Raises: JobError where the loss is not finite, or exactly zero for the third logged step in a row."""
        require_finite("loss", loss, step)
        self._zero_losses = self._zero_losses + 1 if loss == 0 else 0
        if self._zero_losses == _ZERO_LOSSES:
            raise JobError(
                f"The loss was exactly 0 at {_ZERO_LOSSES} logged steps in a row, up to step {step}: there is nothing "
                "left to learn.",
                advice="Look at the dataset: rows whose answers are all alike or already known teach nothing.",
            )


def require_finite(what: str, value: float, step: int) -> None:
    """Raises: JobError. A gradient's norm that is no number has made the weights none by then, as has an eval loss."""
    if not math.isfinite(value):
        raise JobError(
            f"The {what} became {value} at step {step}, so nothing more can be learned.",
            advice="Try a tenth of learning_rate, or a lower max_grad_norm, and look for odd rows in the dataset.",
        )


def _zeros(tensors: dict[str, Any]) -> Iterator[str]:
    """Names of the tensors that hold zeros alone; one transfer from the device for all of them."""
    if not tensors:
        return
    any_set = torch.stack([tensor.ne(0).any() for tensor in tensors.values()]).tolist()
    yield from (name for name, is_set in zip(tensors, any_set, strict=True) if not is_set)


def _refuse(names: list[str], what: str) -> None:
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise JobError(
            f"{len(names)} trainable tensors {what}, so they cannot learn: {', '.join(names[:_NAMED])}{more}.",
            advice="Leave these modules out of target_modules, or turn gradient_checkpointing off.",
        )


def _refuse_layers(names: list[str], total: int, what: str) -> None:
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise JobError(
            f"{len(names)} of {total} layers {what}, so they cannot learn: {', '.join(names[:_NAMED])}{more}.",
            advice="Turn gradient_checkpointing off, raise learning_rate, or train with `method: lora`.",
        )
