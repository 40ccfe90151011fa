"""Named starting points for a training job, each with a sentence on when to take it.

Source: the LoRA paper (Hu et al., 2021) and peft's guide for alpha = r or 2r and all linear layers; learning rates of
1e-4 to 3e-4 are usual for adapters, the lower ones for the higher ranks. The values for one consumer GPU are those of
the QLoRA paper (Dettmers et al., 2023, appendix B) for 7B: rank 64, 16 rows a step, gradients clipped at 0.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.core.errors import NotFound
from app.core.jobs.spec import METHOD_DEFAULTS, TASK_DEFAULTS, TrainingSpec, own_defaults


@dataclass(frozen=True, slots=True)
class Preset:
    """Some of a TrainingSpec's values under a name, for `task: sft`; what it leaves out keeps the spec's default."""

    key: str
    name: str
    when: str
    values: Mapping[str, Any]


PRESETS = (
    Preset(
        "quick-test",
        "Quick test",
        "See within minutes whether model and data work together, before you spend a night on them.",
        {
            "method": "lora",
            "r": 8,
            "lora_alpha": 16,
            "lora_dropout": 0.05,
            "target_modules": "all-linear",
            "max_steps": 30,
            "learning_rate": 3e-4,
            "eval_steps": 10,
            "save_steps": 30,
        },
    ),
    Preset(
        "balanced",
        "Balanced",
        "The usual choice: a style, a format or a narrow skill, from some hundred to some ten thousand rows.",
        {
            "method": "lora",
            "r": 16,
            "lora_alpha": 32,
            "lora_dropout": 0.05,
            "target_modules": "all-linear",
            "learning_rate": 2e-4,
        },
    ),
    Preset(
        "maximum-quality",
        "Maximum quality",
        "Much data and new knowledge: a high rank, rank-stabilised, for two passes. It takes more memory and time.",
        {
            "method": "lora",
            "r": 64,
            "lora_alpha": 64,
            "lora_dropout": 0.1,
            "target_modules": "all-linear",
            "use_rslora": True,
            "num_train_epochs": 2.0,
            "learning_rate": 1e-4,
            "warmup_ratio": 0.05,
        },
    ),
    Preset(
        "consumer-gpu",
        "Low VRAM",
        "A model of 7 or 8 billion parameters on one GPU of 12 to 16 GB: its weights in 4 bits, one row at a time. "
        "Slower than LoRA, so take it where LoRA does not fit.",
        {
            "method": "qlora",
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "r": 64,
            "lora_alpha": 64,
            "lora_dropout": 0.05,
            "target_modules": "all-linear",
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 16,
            "gradient_checkpointing": True,
            "optim": "paged_adamw_8bit",
            "learning_rate": 2e-4,
            "max_grad_norm": 0.3,
        },
    ),
)


def get_preset(key: str) -> Preset:
    """Raises: NotFound that names what there is."""
    for preset in PRESETS:
        if preset.key == key:
            return preset
    known = ", ".join(preset.key for preset in PRESETS)
    raise NotFound(f"There is no preset {key!r}.", advice=f"Presets: {known}.")


def find_preset(key: object) -> Preset | None:
    """None for no key at all. Raises: NotFound for one that no preset has."""
    return get_preset(str(key)) if key else None


def baseline(preset: Preset | None, method: str, task: str) -> dict[str, Any]:
    """Every value of a spec where nobody gave another: the preset's, else the method's or the task's, else the field's.

    A preset speaks for its own method and for `sft`: what another method or task wants otherwise goes before it.
    """
    mine = dict(preset.values) if preset else {}
    of_method, of_task = METHOD_DEFAULTS.get(method, {}), TASK_DEFAULTS.get(task, {})
    if method != mine.get("method", method):
        mine = {name: value for name, value in mine.items() if name not in of_method}
    mine = {name: value for name, value in mine.items() if name not in of_task}
    fields = {name: "" if info.is_required() else info.default for name, info in TrainingSpec.model_fields.items()}
    return {**fields, **own_defaults(method, task), **mine}
