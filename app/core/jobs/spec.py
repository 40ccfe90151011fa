"""TrainingSpec: the one source of every hyperparameter, for the form, the API, the CLI and the YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.core.errors import Fault, InvalidInput
from app.core.jobs.spec_faults import combination_faults, describe_fault, is_expression
from app.core.strict_yaml import load_yaml


def _field(default: Any, group: str, label: str, help_text: str, **bounds: Any) -> Any:
    """A field with its place in the form. Bounds are pydantic's (gt, ge, lt, le)."""
    return Field(default, title=label, description=help_text, json_schema_extra={"group": group}, **bounds)


# Where the method or the task wants another default than the field's own.
METHOD_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "qlora": {"optim": "paged_adamw_8bit"},
    "full": {"learning_rate": 2e-5},
}
TASK_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "dpo": {"learning_rate": 5e-5},
    "text": {"overlong_rows": "split"},
}

RankInt = Annotated[int, Field(ge=1, le=1024)]
AlphaFloat = Annotated[float, Field(gt=0, le=4096)]


class TrainingSpec(BaseModel):
    """Everything that decides a training run. Names are peft's and transformers'."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    base_model: str = _field(..., "model", "Base model", "A registered model, by name.", min_length=1)
    dataset: str = _field(..., "data", "Dataset", "A registered dataset, by name.", min_length=1)
    eval_fraction: float = _field(
        0.05, "data", "Eval split", "Share of the rows held out to measure eval loss; 0 turns it off.", ge=0, le=0.5
    )
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
    r: int = _field(16, "basics", "Rank (r)", "Rank of the adapter: more can learn more and costs more.", ge=1, le=1024)
    lora_alpha: float = _field(
        32, "basics", "Alpha", "The update is scaled by alpha / r; alpha = r or 2r is usual.", gt=0, le=4096
    )
    lora_dropout: float = _field(
        0.05, "basics", "Dropout", "Dropout before the adapter; 0.05 to 0.1 is usual.", ge=0, lt=1
    )
    target_modules: Literal["all-linear"] | list[str] = _field(
        "all-linear", "basics", "Target modules", "`all-linear`, or names of linear modules separated by commas."
    )
    use_rslora: bool = _field(
        False,
        "advanced",
        "Rank-stabilised",
        "Scale the update by alpha / sqrt(r) instead of alpha / r: for high ranks.",
    )
    use_dora: bool = _field(
        False, "advanced", "DoRA", "Learn the weights' magnitude apart from their direction: slower, at times better."
    )
    init_lora_weights: Literal["default", "gaussian", "pissa", "pissa_niter_16", "olora", "orthogonal"] = _field(
        "default",
        "advanced",
        "Initialisation",
        "`default` and `gaussian` start as the base model; `pissa` (exact, or 16 quick iterations) and `olora` learn "
        "the weights' main directions, and save an adapter of twice the rank; `orthogonal` needs an even rank.",
    )
    bias: Literal["none", "all", "lora_only"] = _field(
        "none", "advanced", "Bias", "Which of the model's biases learn too: none, all, or those of target modules."
    )
    modules_to_save: list[str] = _field(
        [], "advanced", "Modules to save", "Names of modules trained whole and saved with the adapter, such as lm_head."
    )
    rank_pattern: dict[str, RankInt] = _field(
        {}, "advanced", "Rank pattern", "Another rank for modules whose name matches, as `q_proj: 32, down_proj: 8`."
    )
    alpha_pattern: dict[str, AlphaFloat] = _field(
        {}, "advanced", "Alpha pattern", "Another alpha for modules whose name matches, as `q_proj: 64`."
    )
    load_in_8bit: bool = _field(
        False,
        "advanced",
        "8 bits",
        "QLoRA: hold the frozen weights in 8 bits instead of 4; nearer to them, and larger.",
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = _field(
        "nf4", "advanced", "4-bit type", "QLoRA: NF4 suits weights, which are spread normally."
    )
    bnb_4bit_use_double_quant: bool = _field(
        True, "advanced", "Double quantisation", "QLoRA: quantise the scales too, which saves 0.37 bit per weight."
    )
    beta: float = _field(
        0.1,
        "advanced",
        "DPO beta",
        "DPO: how strongly the model is held to its start; 0.1 is usual.",
        gt=0,
        le=10,
    )
    max_length: int = _field(
        512, "basics", "Max length", "Longest row in tokens; see overlong rows for longer ones.", ge=8, le=1_048_576
    )
    overlong_rows: Literal["truncate", "drop", "split"] = _field(
        "truncate",
        "advanced",
        "Overlong rows",
        "Rows beyond the max length are cut from the end, left out, or (plain text only) split into several.",
    )
    per_device_train_batch_size: int = _field(4, "basics", "Batch size", "Rows per forward pass.", ge=1, le=4096)
    gradient_accumulation_steps: int = _field(
        1, "basics", "Gradient accumulation", "Forward passes per optimizer step.", ge=1, le=4096
    )
    num_train_epochs: float = _field(1, "basics", "Epochs", "Passes over the training rows.", gt=0, le=1000)
    max_steps: int | None = _field(
        None,
        "basics",
        "Max steps",
        "Stop after so many optimizer steps; empty follows the epochs.",
        ge=1,
        le=10_000_000,
    )
    learning_rate: float = _field(2e-4, "basics", "Learning rate", "1e-4 to 3e-4 suits LoRA.", gt=0, le=1)
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = _field(
        "cosine", "advanced", "LR schedule", "How the learning rate falls after the warm-up."
    )
    warmup_ratio: float = _field(
        0.03, "advanced", "Warm-up", "Share of the steps in which the learning rate rises from 0.", ge=0, lt=1
    )
    weight_decay: float = _field(0.0, "advanced", "Weight decay", "AdamW's decoupled weight decay.", ge=0, le=1)
    max_grad_norm: float = _field(1.0, "advanced", "Gradient clip", "Gradients are scaled down to this norm.", gt=0)
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"] = _field(
        "adamw_torch",
        "advanced",
        "Optimizer",
        "AdamW. The 8-bit ones hold its state in 8 bits; paged ones move it to host memory when VRAM runs short.",
    )
    bf16: Literal["auto"] | bool = _field(
        "auto", "advanced", "bf16", "`auto` uses bfloat16 where the device computes in it, else float32."
    )
    gradient_checkpointing: Literal["auto"] | bool = _field(
        "auto", "advanced", "Gradient checkpointing", "Saves memory for time; `auto` is on with CUDA, off on the CPU."
    )
    packing: bool = _field(
        False, "advanced", "Packing", "Fill each sequence up to the max length with rows that cannot see each other."
    )
    seed: int = _field(
        42, "advanced", "Seed", "Fixes the order of rows, dropout and the adapter's start.", ge=0, le=2**32 - 1
    )
    logging_steps: int = _field(1, "advanced", "Logging steps", "A metric point every so many steps.", ge=1)
    eval_steps: int = _field(50, "advanced", "Eval steps", "Eval loss every so many steps, and at the end.", ge=1)
    save_steps: int = _field(
        50, "advanced", "Save steps", "Save the adapter every so many steps, and at the end.", ge=1
    )
    save_total_limit: int = _field(2, "advanced", "Saved adapters", "How many saved adapters are kept.", ge=1, le=1000)
    early_stopping_patience: int | None = _field(
        None,
        "advanced",
        "Early stopping",
        "Stop after so many evals without a better eval loss, and keep the best adapter; empty turns it off.",
        ge=1,
        le=1000,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """In YAML `yes` and `on` are true, which pydantic would take for 1."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and {int, float} & {annotation, *get_args(annotation)}:
            raise PydanticCustomError("bool_as_number", "Input should be a number")
        return value

    @field_validator("base_model", "dataset", mode="before")
    @classmethod
    def _take_ids(cls, value: Any) -> Any:
        """An id in YAML or JSON is a number."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("rank_pattern", "alpha_pattern", mode="before")
    @classmethod
    def _check_patterns(cls, value: Any) -> Any:
        """Names are regular expressions; a boolean is no number."""
        if not isinstance(value, Mapping):
            return value
        for name, number in value.items():
            if isinstance(number, bool) or not is_expression(name):
                raise PydanticCustomError("pattern", "Input should be names or regular expressions, each with a number")
        return value

    @model_validator(mode="before")
    @classmethod
    def _take_defaults_of_method_and_task(cls, values: Any) -> Any:
        """What is not given follows the method and the task where the usual default would not suit them."""
        if not isinstance(values, Mapping):
            return values
        task = TASK_DEFAULTS.get(str(values.get("task")), {})
        method = METHOD_DEFAULTS.get(str(values.get("method")), {})
        return {**task, **method, **values}

    def to_yaml(self) -> str:
        """The job YAML that reproduces this spec."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def parse_spec(values: Mapping[str, Any]) -> TrainingSpec:
    """Validate plain values. Raises: InvalidInput with every fault at once, each with its field."""
    try:
        spec = TrainingSpec.model_validate(dict(values))
    except ValidationError as error:
        faults = [describe_fault(detail, TrainingSpec.model_fields) for detail in error.errors()]
        raise InvalidInput([*faults, *_faults_of_the_rest(values, {fault.field for fault in faults})]) from None
    faults = combination_faults(spec)
    if faults:
        raise InvalidInput(faults)
    return spec


def _faults_of_the_rest(values: Mapping[str, Any], faulty: set[str]) -> list[Fault]:
    """What cannot go together among the fields that are right alone; nothing where task or method is not known."""
    if faulty & {"task", "method"}:
        return []
    right = {name: values[name] for name in TrainingSpec.model_fields if name in values and name not in faulty}
    return combination_faults(TrainingSpec.model_validate({"base_model": "?", "dataset": "?", **right}))


def parse_yaml(text: str) -> TrainingSpec:
    """Read and validate a job YAML. Raises: InvalidInput."""
    return parse_spec(read_yaml(text))


def read_yaml(text: str) -> dict[str, Any]:
    """A job YAML's values, not yet validated. Raises: InvalidInput."""
    try:
        values = load_yaml(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise InvalidInput(f"This is not valid YAML: {reason}", field="yaml") from None
    if not isinstance(values, dict):
        raise InvalidInput("A job YAML is a mapping of field: value.", field="yaml")
    return {str(key): value for key, value in values.items()}
