"""LLaMA-Factory's training YAML as a spec.

Source: LLaMA-Factory's arguments (its `hparams`) and transformers' TrainingArguments, of 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.core.jobs.recipes.common import (
    ONE_DATASET,
    OPTIMIZER_ADVICE,
    OPTIMIZERS,
    SCHEDULE_ADVICE,
    SCHEDULES,
    dataset_name,
    number,
    quantised,
    take_held_out,
    take_interval,
    take_precision,
    take_warmup,
)
from app.core.jobs.recipes.reasons import LLAMA_FACTORY, reason_in
from app.core.jobs.recipes.recipe import Draft, Recipe

PROGRAM = "LLaMA-Factory"
TELLING = frozenset({"model_name_or_path", "finetuning_type", "stage", "cutoff_len", "lora_target", "do_train"})

_SAME = {
    "model_name_or_path": "base_model",
    "cutoff_len": "max_length",
    "per_device_train_batch_size": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "num_train_epochs": "num_train_epochs",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "seed": "seed",
    "save_total_limit": "save_total_limit",
    "early_stopping_steps": "early_stopping_patience",
}
_SAME_OF_LORA = {
    "lora_rank": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "quantization_type": "bnb_4bit_quant_type",
    "double_quantization": "bnb_4bit_use_double_quant",
}
_TASKS = {"sft": "sft", "pt": "text", "dpo": "dpo"}
_RANK = 8  # LLaMA-Factory's default


def read_llama_factory(given: Mapping[str, Any]) -> Recipe:
    """Every key of the file is accounted for."""
    draft = Draft(PROGRAM, given)
    draft.choose("stage", "task", _TASKS, "Stages here: sft, pt (as task: text) and dpo.")
    _take_method(draft)
    _take_dataset(draft)
    _take_objective(draft)
    draft.rename(_SAME)
    draft.choose("optim", "optim", OPTIMIZERS, OPTIMIZER_ADVICE)
    draft.choose("lr_scheduler_type", "lr_scheduler_type", SCHEDULES, SCHEDULE_ADVICE)
    _take_evals(draft)
    take_warmup(draft, 0.0, "neither warmup_ratio nor warmup_steps can be taken over; there is none by default")
    take_interval(draft, "logging_steps", 500)
    take_interval(draft, "save_steps", 500)
    take_precision(draft)
    _take_steps(draft)
    if draft.take("disable_gradient_checkpointing"):
        draft.put("disable_gradient_checkpointing", True, "gradient_checkpointing", False)
    _assume(draft)
    return draft.finish(reason_in(LLAMA_FACTORY))


def _take_method(draft: Draft) -> None:
    kind, bits = draft.take("finetuning_type") or "lora", draft.take("quantization_bit")
    way = draft.take("quantization_method")
    if kind not in ("lora", "full"):
        draft.refuse("finetuning_type", kind, "method", "Methods here: lora (with quantization_bit: qlora) and full.")
        return
    if bits is not None and bits not in (4, 8):
        draft.refuse("quantization_bit", bits, "method", "Weights are held in 4 or 8 bits here.")
    elif bits is not None and way not in (None, "bnb", "bitsandbytes"):
        draft.refuse("quantization_method", way, "method", "Weights are quantised by bitsandbytes here.")
    elif bits is not None:
        quantised(draft, "quantization_bit", bits, bits)
    else:
        draft.put("finetuning_type", kind, "method", kind)
    if kind == "full":
        return
    draft.rename(_SAME_OF_LORA)
    _take_targets(draft)
    _take_initialisation(draft)


def _take_targets(draft: Draft) -> None:
    named, more = draft.take("lora_target") or "all", draft.take("additional_target")
    into = "all-linear" if named == "all" else _listed(named)
    draft.put("lora_target", named, "target_modules", into)
    if more is not None:
        draft.put("additional_target", more, "modules_to_save", _listed(more))


def _take_initialisation(draft: Draft) -> None:
    wanted, rounds = draft.take("pissa_init"), draft.take("pissa_iter")
    if not wanted:
        return
    ways = {None: "pissa_niter_16", 16: "pissa_niter_16", -1: "pissa"}
    if rounds in ways:
        draft.put("pissa_init", wanted, "init_lora_weights", ways[rounds])
    else:
        draft.refuse("pissa_iter", rounds, "init_lora_weights", "PiSSA is exact here (-1), or takes 16 iterations.")


def _take_dataset(draft: Draft) -> None:
    names = _listed(draft.take("dataset"))
    if len(names) > 1:
        draft.refuse("dataset", names, "dataset", ONE_DATASET)
    elif names:
        draft.put("dataset", names[0], "dataset", dataset_name(names[0]), "the dataset registered under this name")
    packing, neat = draft.take("packing"), draft.take("neat_packing")
    if packing or neat:
        note = "" if neat else "rows of a pack never see each other here"
        draft.put("neat_packing" if neat else "packing", True, "packing", True, note)


def _take_objective(draft: Draft) -> None:
    """What is learned of a row; another objective would be another training."""
    beta = draft.take("pref_beta")
    if beta is not None and draft.recipe.values.get("task") == "dpo":
        draft.put("pref_beta", beta, "beta", beta)
    loss, ftx = draft.take("pref_loss"), draft.take("pref_ftx")
    if loss not in (None, "sigmoid"):
        draft.refuse("pref_loss", loss, "task", "Preferences are learned by DPO's sigmoid loss here.")
    if number(ftx):
        draft.refuse("pref_ftx", ftx, "task", "No loss of answers is added to DPO's here.")
    for key in ("train_on_prompt", "mask_history"):
        if draft.take(key):
            draft.refuse(key, True, "task", "Of conversations all answers are learned here, and nothing else.")


def _take_evals(draft: Draft) -> None:
    take_held_out(draft, "val_size")
    how = draft.take("eval_strategy")
    if how == "no":
        draft.recipe.values["eval_fraction"] = 0.0
        draft.recipe.values.pop("eval_max_rows", None)
    elif how not in (None, "steps"):
        draft.leave("eval_strategy", how, "evals come every eval_steps steps")
    take_interval(draft, "eval_steps")


def _take_steps(draft: Draft) -> None:
    most = draft.take("max_steps")
    if (number(most) or 0) > 0:
        draft.put("max_steps", most, "max_steps", most)


def _assume(draft: Draft) -> None:
    """LLaMA-Factory's and transformers' defaults where the spec has others."""
    default = "not given; this is LLaMA-Factory's default"
    draft.assume("max_length", 2048, default)
    draft.assume("per_device_train_batch_size", 8, default)
    draft.assume("num_train_epochs", 3.0, default)
    draft.assume("learning_rate", 5e-5, default)
    draft.assume("lr_scheduler_type", "linear", default)
    draft.assume("gradient_checkpointing", True, default)
    if draft.recipe.values.get("method") in ("lora", "qlora"):
        draft.assume("r", _RANK, default)
        draft.assume("lora_alpha", 2 * (number(draft.recipe.values["r"]) or _RANK), "not given; it is twice the rank")
        draft.assume("lora_dropout", 0.0, default)


def _listed(value: Any) -> list[str]:
    """Names separated by commas, or a list of them."""
    if value is None:
        return []
    parts = value if isinstance(value, list) else str(value).split(",")
    return [str(part).strip() for part in parts if str(part).strip()]
