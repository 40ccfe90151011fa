"""The fields of a TrainingSpec by subject: default, bounds, help, and where and when the form shows each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from pydantic.config import JsonDict

RankInt = Annotated[int, Field(ge=1, le=1024)]
AlphaFloat = Annotated[float, Field(gt=0, le=4096)]


def _field(
    default: Any,
    group: str,
    label: str,
    help_text: str,
    *,
    advanced: bool = False,
    methods: Sequence[str] = (),
    tasks: Sequence[str] = (),
    **bounds: Any,
) -> Any:
    """A field with its place in the form. Bounds are pydantic's (gt, ge, lt, le).

    `methods` and `tasks` are those that the field applies to; empty: every one.
    """
    place: JsonDict = {"group": group, "advanced": advanced, "methods": list(methods), "tasks": list(tasks)}
    return Field(default, title=label, description=help_text, json_schema_extra=place, **bounds)


def _in_group(group: str, **place: Any) -> Callable[..., Any]:
    """`_field` for one group."""

    def field(default: Any, label: str, help_text: str, **more: Any) -> Any:
        return _field(default, group, label, help_text, **{**place, **more})

    return field


_lora = _in_group("lora", methods=("lora", "qlora"))
_quantisation = _in_group("quantisation", methods=("qlora",))
_preference = _in_group("preference", tasks=("dpo",))
_rows = _in_group("rows")
_optimizer = _in_group("optimizer")
_logging = _in_group("logging", advanced=True)


class SourceFields(BaseModel):
    """What is trained on what."""

    base_model: str = _field(..., "model", "Base model", "A registered model, by name.", min_length=1)
    dataset: str = _field(..., "model", "Dataset", "A registered dataset, by name.", min_length=1)


class MethodFields(BaseModel):
    """What is learned, and how much of the model takes part."""

    task: Literal["sft", "dpo", "text"] = _field(
        "sft",
        "method",
        "Task",
        "`sft` learns the answers of conversations, `dpo` to prefer chosen over rejected answers, `text` plain text.",
    )
    method: Literal["lora", "qlora", "full"] = _field(
        "lora",
        "method",
        "Method",
        "`lora` trains small low-rank matrices beside the frozen weights, `qlora` the same beside weights held in 4 or "
        "8 bits, `full` every weight.",
    )


class LoraFields(BaseModel):
    """The adapter. Names are peft's."""

    r: int = _lora(16, "Rank (r)", "Rank of the adapter: more can learn more and costs more.", ge=1, le=1024)
    lora_alpha: float = _lora(
        32, "Alpha", "The update is scaled by alpha / r; alpha = r or 2r is usual.", gt=0, le=4096
    )
    lora_dropout: float = _lora(0.05, "Dropout", "Dropout before the adapter; 0.05 to 0.1 is usual.", ge=0, lt=1)
    target_modules: Literal["all-linear"] | list[str] = _lora(
        "all-linear", "Target modules", "`all-linear`, or names of linear modules separated by commas."
    )
    use_rslora: bool = _lora(
        False,
        "Rank-stabilised",
        "Scale the update by alpha / sqrt(r) instead of alpha / r: for high ranks.",
        advanced=True,
    )
    use_dora: bool = _lora(
        False,
        "DoRA",
        "Learn the weights' magnitude apart from their direction: slower, at times better.",
        advanced=True,
    )
    init_lora_weights: Literal["default", "gaussian", "pissa", "pissa_niter_16", "olora", "orthogonal"] = _lora(
        "default",
        "Initialisation",
        "`default` and `gaussian` start as the base model; `pissa` (exact, or 16 quick iterations) and `olora` learn "
        "the weights' main directions, and save an adapter of twice the rank; `orthogonal` needs an even rank.",
        advanced=True,
    )
    bias: Literal["none", "all", "lora_only"] = _lora(
        "none", "Bias", "Which of the model's biases learn too: none, all, or those of target modules.", advanced=True
    )
    modules_to_save: list[str] = _lora(
        [],
        "Modules to save",
        "Names of modules trained whole and saved with the adapter, such as lm_head.",
        advanced=True,
    )
    rank_pattern: dict[str, RankInt] = _lora(
        {}, "Rank pattern", "Another rank for modules whose name matches, as `q_proj: 32, down_proj: 8`.", advanced=True
    )
    alpha_pattern: dict[str, AlphaFloat] = _lora(
        {}, "Alpha pattern", "Another alpha for modules whose name matches, as `q_proj: 64`.", advanced=True
    )


class QuantisationFields(BaseModel):
    """How the frozen weights are held. Names are those of transformers' BitsAndBytesConfig."""

    load_in_8bit: bool = _quantisation(
        False, "8 bits", "Hold the frozen weights in 8 bits instead of 4; nearer to them, and larger."
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = _quantisation(
        "nf4", "4-bit type", "NF4 suits weights, which are spread normally."
    )
    bnb_4bit_use_double_quant: bool = _quantisation(
        True, "Double quantisation", "Quantise the scales too, which saves 0.37 bit per weight."
    )


class PreferenceFields(BaseModel):
    """Direct preference optimisation."""

    beta: float = _preference(
        0.1, "DPO beta", "How strongly the model is held to its start; 0.1 is usual.", gt=0, le=10
    )


class RowFields(BaseModel):
    """Which rows are trained on, and how they become sequences."""

    eval_fraction: float = _rows(
        0.05, "Eval split", "Share of the rows held out to measure eval loss; 0 turns it off.", ge=0, le=0.5
    )
    max_length: int = _rows(
        512, "Max length", "Longest row in tokens; see overlong rows for longer ones.", ge=8, le=1_048_576
    )
    overlong_rows: Literal["truncate", "drop", "split"] = _rows(
        "truncate",
        "Overlong rows",
        "Rows beyond the max length are cut from the end, left out, or (plain text only) split into several.",
    )
    packing: bool = _rows(
        False,
        "Packing",
        "Fill each sequence up to the max length with rows that cannot see each other.",
        tasks=("sft", "text"),
    )


class OptimizerFields(BaseModel):
    """The optimizer, its schedule, and what a step costs. Names are those of transformers' TrainingArguments."""

    per_device_train_batch_size: int = _optimizer(4, "Batch size", "Rows per forward pass.", ge=1, le=4096)
    gradient_accumulation_steps: int = _optimizer(
        1, "Gradient accumulation", "Forward passes per optimizer step.", ge=1, le=4096
    )
    num_train_epochs: float = _optimizer(1, "Epochs", "Passes over the training rows.", gt=0, le=1000)
    max_steps: int | None = _optimizer(
        None,
        "Max steps",
        "Stop after so many optimizer steps; empty follows the epochs.",
        ge=1,
        le=10_000_000,
    )
    learning_rate: float = _optimizer(
        2e-4,
        "Learning rate",
        "1e-4 to 3e-4 suits LoRA, about a tenth of it DPO or full training, 1e-6 both together.",
        gt=0,
        le=1,
    )
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = _optimizer(
        "cosine", "LR schedule", "How the learning rate falls after the warm-up.", advanced=True
    )
    warmup_ratio: float = _optimizer(
        0.03, "Warm-up", "Share of the steps in which the learning rate rises from 0.", ge=0, lt=1, advanced=True
    )
    weight_decay: float = _optimizer(0.0, "Weight decay", "AdamW's decoupled weight decay.", ge=0, le=1, advanced=True)
    max_grad_norm: float = _optimizer(
        1.0, "Gradient clip", "Gradients are scaled down to this norm.", gt=0, advanced=True
    )
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"] = (
        _optimizer(
            "adamw_torch",
            "Optimizer",
            "AdamW. The 8-bit ones hold its state in 8 bits; paged ones move it to host memory when VRAM runs short.",
            advanced=True,
        )
    )
    bf16: Literal["auto"] | bool = _optimizer(
        "auto", "bf16", "`auto` uses bfloat16 where the device computes in it, else float32.", advanced=True
    )
    gradient_checkpointing: Literal["auto"] | bool = _optimizer(
        "auto",
        "Gradient checkpointing",
        "Saves memory for time; `auto` is on with CUDA, off on the CPU.",
        advanced=True,
    )
    seed: int = _optimizer(
        42, "Seed", "Fixes the order of rows, dropout and the adapter's start.", ge=0, le=2**32 - 1, advanced=True
    )


class LoggingFields(BaseModel):
    """What is measured and kept while it trains."""

    logging_steps: int = _logging(1, "Logging steps", "A metric point every so many steps.", ge=1)
    eval_steps: int = _logging(50, "Eval steps", "Eval loss every so many steps, and at the end.", ge=1)
    save_steps: int = _logging(
        50, "Save steps", "Save a checkpoint every so many steps, and the result at the end.", ge=1
    )
    save_total_limit: int = _logging(2, "Checkpoints kept", "How many checkpoints are kept.", ge=1, le=1000)
    early_stopping_patience: int | None = _logging(
        None,
        "Early stopping",
        "Stop after so many evals without a better eval loss, and keep the best weights; empty turns it off.",
        ge=1,
        le=1000,
    )
