"""The plan's entry point for memory: from sizes and a spec to the peak bytes of a training step, by component."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.jobs.spec import TrainingSpec
from app.core.planning.architecture import Architecture
from app.core.planning.logits import Loss
from app.core.planning.moments import find_largest
from app.core.planning.state import optimizer_bytes, weight_bytes
from app.core.planning.step import NotPlanned, Setting, Step, make_step

__all__ = ["Loss", "NotPlanned", "Peak", "Setting", "peak_of", "peak_of_step"]


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes that are allocated when most are."""

    weights: int
    adapter: int
    optimizer: int
    gradients: int
    activations: int
    logits: int

    @property
    def allocated(self) -> int:
        """Their sum, as the allocator counts it, without the context of CUDA."""
        return self.weights + self.adapter + self.optimizer + self.gradients + self.activations + self.logits


def peak_of(
    architecture: Architecture, spec: TrainingSpec, setting: Setting | None = None, *, loss: Loss | None = None
) -> Peak:
    """Bytes at the peak of a step on the largest batch. `loss` None: as the engine scores this model.

    Raises: InvalidInput at `target_modules`, `modules_to_save` or `lora_dropout`; NotPlanned for what is not covered.
    """
    return peak_of_step(architecture, make_step(architecture, spec, setting or Setting(), loss))


def peak_of_step(architecture: Architecture, step: Step) -> Peak:
    """Bytes at the peak. Weights, adapter and the optimizer's state are there all the time, the rest at one moment."""
    learning = step.learning
    optimizer = optimizer_bytes(step.optim, step.tensors, on_cuda=step.on_cuda)
    moment = find_largest(architecture, step, optimizer.temporary)
    weights = weight_bytes(architecture, learning.bits, learning.base_width, double=step.double_quantised)
    return Peak(
        weights=round(weights),
        adapter=0 if learning.base else step.learned_bytes,
        optimizer=round(optimizer.state),
        gradients=round(moment.gradients),
        activations=round(moment.activations),
        logits=round(moment.logits),
    )
