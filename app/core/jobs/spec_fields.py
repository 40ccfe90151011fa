"""Fields of a TrainingSpec: what is trained, on what, and how much of it. Each with default, bounds, help, and where
and when the form shows it; `spec_run_fields` has those of the run."""

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


def in_group(group: str, **place: Any) -> Callable[..., Any]:
    """Makes fields of one group of the form, as `_field` does."""

    def field(default: Any, label: str, help_text: str, **more: Any) -> Any:
        return _field(default, group, label, help_text, **{**place, **more})

    return field


_lora = in_group("lora", methods=("lora", "qlora"))
_quantisation = in_group("quantisation", methods=("qlora",))
_preference = in_group("preference", tasks=("dpo",))


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

    init_adapter: str | None = _lora(
        None,
        "Start from adapter",
        "Id of a job whose adapter is trained on, instead of starting a new one: a training's, or an imported one. "
        "Rank, alpha and modules must be those that it has.",
        advanced=True,
        min_length=1,
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
