"""The plan's entry point for memory: from sizes and a spec to the peak bytes of a training step, by component."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.errors import InvalidInput
from app.core.jobs.spec import TrainingSpec
from app.core.planning.architecture import Architecture
from app.core.planning.memory import Batch, LoraStep, Loss, Peak, peak_of_lora
from app.core.planning.trainable import count_trainable, targeted

__all__ = ["Loss", "NotPlanned", "Peak", "Setting", "peak_of"]


class NotPlanned(InvalidInput):
    """The memory of such a step has not been derived."""

    code = "not_planned"


@dataclass(frozen=True, slots=True)
class Setting:
    """What the spec leaves open: the device, and the rows of the largest batch."""

    on_cuda: bool = True
    element_bytes: int = 2  # of the type that is computed in: 2 for bfloat16, 4 for float32
    longest_row: int | None = None  # in tokens; None: as long as the spec allows
    labelled: float = 1.0  # share of the tokens with a label; 1 is the most there can be

    def length(self, spec: TrainingSpec) -> int:
        """Tokens of the longest row, or of a full pack."""
        if spec.packing or self.longest_row is None:
            return spec.max_length
        return min(self.longest_row, spec.max_length)


def peak_of(
    architecture: Architecture, spec: TrainingSpec, setting: Setting | None = None, *, loss: Loss | None = None
) -> Peak:
    """Bytes at the peak of a step on the largest batch. `loss` None: as the engine scores this model.

    Raises: InvalidInput at `target_modules` or `modules_to_save`; NotPlanned for what is not covered.
    """
    setting = setting or Setting()
    _check_covered(architecture, spec, setting)
    rows, length = spec.per_device_train_batch_size, setting.length(spec)
    automatic = spec.gradient_checkpointing == "auto"
    step = LoraStep(
        targeted(architecture, spec),
        spec.r,
        count_trainable(architecture, spec).total,
        parameter_bytes=4,
        optimizer_bytes=2 if "8bit" in spec.optim else 8,
        dropout=spec.lora_dropout > 0,
        checkpointing=setting.on_cuda if automatic else bool(spec.gradient_checkpointing),
        quantised=spec.method == "qlora",
        loss=loss or Loss.CHUNKED,
    )
    batch = Batch(rows, length, round(setting.labelled * rows * length), padded=False)
    return peak_of_lora(architecture, batch, step)


def _check_covered(architecture: Architecture, spec: TrainingSpec, setting: Setting) -> None:
    unusual = {
        "method": spec.method == "full",
        "task": spec.task == "dpo",
        "use_dora": spec.use_dora,
        "load_in_8bit": spec.load_in_8bit,
        "modules_to_save": bool(spec.modules_to_save),
        "bias": spec.bias != "none",
        "bf16": setting.element_bytes != 2,
        "base_model": architecture.model_type in ("gpt2", "mixtral", "gemma2"),
    }
    for field, found in unusual.items():
        if found:
            raise NotPlanned("is not covered by the memory plan yet", field=field)
