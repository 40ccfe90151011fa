"""What a spec means for a training step: what learns and in which types, which rows, how they are scored."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.errors import InvalidInput
from app.core.jobs.capabilities import effective_optim
from app.core.jobs.spec import TrainingSpec
from app.core.planning.architecture import Architecture
from app.core.planning.layers import Rows
from app.core.planning.logits import Loss, choose_loss
from app.core.planning.modules import FP32, Learning
from app.core.planning.state import Learned
from app.core.planning.trainable import learned_tensors, mean_rank, targeted


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


@dataclass(frozen=True, slots=True)
class Step:
    """A step on the largest batch."""

    learning: Learning
    tensors: tuple[Learned, ...]
    rows: Rows
    loss: Loss
    labelled: int  # tokens
    head_learns: bool
    embeddings_learn: bool
    checkpointing: bool
    accumulates: bool  # gradients are there from the micro-batches before
    double_quantised: bool
    optim: str
    on_cuda: bool

    @property
    def learned_bytes(self) -> int:
        """Of what learns, and as many of its gradients."""
        return sum(tensor.size for tensor in self.tensors)


def make_step(architecture: Architecture, spec: TrainingSpec, setting: Setting, loss: Loss | None) -> Step:
    """Raises: InvalidInput at `target_modules`, `modules_to_save` or `lora_dropout`; NotPlanned."""
    if architecture.experts and spec.method == "full":
        raise NotPlanned("whole models of experts have not been measured; use lora or qlora", field="method")
    rows = _rows(architecture, spec, setting)
    full, whole = spec.method == "full", spec.modules_to_save
    automatic = spec.gradient_checkpointing == "auto"
    return Step(
        learning=_learning(architecture, spec, setting),
        tensors=tuple(learned_tensors(architecture, spec, setting.element_bytes)),
        rows=rows,
        loss=loss or choose_loss(architecture, whole),
        labelled=max(1, round(setting.labelled * rows.tokens)),
        head_learns=full or "lm_head" in whole,
        embeddings_learn=full or any(name in whole for name in ("embed_tokens", "wte")),
        checkpointing=setting.on_cuda if automatic else bool(spec.gradient_checkpointing),
        accumulates=spec.gradient_accumulation_steps > 1,
        double_quantised=spec.bnb_4bit_use_double_quant,
        optim=effective_optim(spec.optim, on_cuda=setting.on_cuda),
        on_cuda=setting.on_cuda,
    )


def _learning(architecture: Architecture, spec: TrainingSpec, setting: Setting) -> Learning:
    width = setting.element_bytes
    if spec.method == "full":
        return Learning(width, width, FP32, base=True)
    return Learning(
        compute=width,
        frozen=width,
        adapter=FP32,
        ranks={linear.name: mean_rank(architecture, linear, spec) for linear in targeted(architecture, spec)},
        whole=frozenset(spec.modules_to_save),
        dropout=spec.lora_dropout > 0,
        dora=spec.use_dora,
        bits=16 if spec.method != "qlora" else 8 if spec.load_in_8bit else 4,
    )


def _rows(architecture: Architecture, spec: TrainingSpec, setting: Setting) -> Rows:
    """A pair is two rows. Rows that cannot be flattened are padded: those beyond a window, and without a kernel."""
    rows = spec.per_device_train_batch_size * (2 if spec.task == "dpo" else 1)
    length = setting.length(spec)
    masked = architecture.window is not None and architecture.window < length
    padded = masked or architecture.eager_attention
    one_kernel = setting.on_cuda and setting.element_bytes < FP32 and not architecture.attention_dropout
    by_kernel = setting.on_cuda or not architecture.attention_dropout
    return Rows(rows, length, joined=padded or one_kernel, mask=masked, by_kernel=by_kernel)
