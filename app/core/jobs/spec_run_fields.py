"""Fields of a TrainingSpec: the rows, the optimizer with its schedule, and what is measured and kept meanwhile."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.core.jobs.spec_fields import in_group

MOST_SAMPLES = 16
MOST_SAMPLE_CHARACTERS = 2000
SamplePrompt = Annotated[str, Field(min_length=1, max_length=MOST_SAMPLE_CHARACTERS)]

_rows = in_group("rows")
_optimizer = in_group("optimizer")
_logging = in_group("logging", advanced=True)


class RowFields(BaseModel):
    """Which rows are trained on, and how they become sequences."""

    eval_fraction: float = _rows(
        0.05, "Eval split", "Share of the rows held out to measure eval loss; 0 turns it off.", ge=0, le=0.5
    )
    eval_max_rows: int | None = _rows(
        512,
        "Eval rows at most",
        "No more rows than these are held out, whatever their share, so that an eval does not take hours; empty sets "
        "no limit.",
        ge=1,
        le=10_000_000,
        advanced=True,
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
        0.03,
        "Warm-up",
        "Share of the steps in which the learning rate rises to its full value; it is above 0 from the first step on.",
        ge=0,
        lt=1,
        advanced=True,
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
    sample_prompts: list[SamplePrompt] = _logging(
        [],
        "Sample prompts",
        "Answered by the base model, at each checkpoint and at the end, side by side on the job's page; one a line, a "
        "line break within one as \\n. Empty takes two prompts from the held-out rows.",
        max_length=MOST_SAMPLES,
    )
    sample_max_new_tokens: int = _logging(
        48, "Sample length", "Tokens of a sample's answer at most; 0 turns samples off.", ge=0, le=1024
    )
    probe: bool = _logging(
        False,
        "Probe",
        "Take two steps on the longest batch first and forget them again: their peak of memory is shown, and a lack of "
        "it comes before the run proper.",
    )
    early_stopping_patience: int | None = _logging(
        None,
        "Early stopping",
        "Stop after so many evals without a better eval loss, and keep the best weights; empty turns it off.",
        ge=1,
        le=1000,
    )
