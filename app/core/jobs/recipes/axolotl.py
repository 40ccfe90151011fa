"""axolotl's YAML as a spec.

Source: axolotl's config schema and reference (its `utils/schemas`, docs.axolotl.ai), of 2026.
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
    quantised,
    take_held_out,
    take_interval,
    take_precision,
    take_warmup,
)
from app.core.jobs.recipes.reasons import AXOLOTL, reason_in
from app.core.jobs.recipes.recipe import Draft, Recipe

PROGRAM = "axolotl"
TELLING = frozenset({"micro_batch_size", "sequence_len", "datasets", "lora_target_linear", "num_epochs", "adapter"})

_SAME = {
    "base_model": "base_model",
    "sequence_len": "max_length",
    "sample_packing": "packing",
    "micro_batch_size": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "num_epochs": "num_train_epochs",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "seed": "seed",
    "logging_steps": "logging_steps",
    "save_total_limit": "save_total_limit",
    "early_stopping_patience": "early_stopping_patience",
}
_SAME_OF_LORA = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_modules_to_save": "modules_to_save",
    "peft_use_dora": "use_dora",
    "peft_use_rslora": "use_rslora",
}
_INITIALISATIONS = {True: "default", "gaussian": "gaussian", "pissa": "pissa", "olora": "olora",
                    "pissa_niter_16": "pissa_niter_16", "orthogonal": "orthogonal"}  # fmt: skip
_OVERLONG = {"drop": "drop", "truncate": "truncate"}
_TEXT_TYPES = ("completion", "pretrain")
_OF_UPLOAD = "how rows are read is decided when the dataset is uploaded"


def read_axolotl(given: Mapping[str, Any]) -> Recipe:
    """Every key of the file is accounted for."""
    draft = Draft(PROGRAM, given)
    _take_method(draft)
    _take_task(draft)
    _take_dataset(draft)
    draft.rename(_SAME)
    draft.choose("optimizer", "optim", OPTIMIZERS, OPTIMIZER_ADVICE)
    draft.choose("lr_scheduler", "lr_scheduler_type", SCHEDULES, SCHEDULE_ADVICE)
    draft.choose("excess_length_strategy", "overlong_rows", _OVERLONG, "Overlong rows are dropped or truncated here.")
    take_held_out(draft, "val_set_size")
    take_warmup(draft, 0.03, "neither warmup_ratio nor warmup_steps can be taken over; axolotl's default is 3 %")
    take_interval(draft, "eval_steps")
    take_interval(draft, "save_steps")
    take_precision(draft)
    _take_checkpointing(draft)
    draft.rename({"max_steps": "max_steps"})  # behind those that are a share of it
    _assume(draft)
    return draft.finish(reason_in(AXOLOTL))


def _take_method(draft: Draft) -> None:
    adapter, four, eight = draft.take("adapter"), draft.take("load_in_4bit"), draft.take("load_in_8bit")
    if adapter not in (None, "lora", "qlora"):
        draft.refuse("adapter", adapter, "method", "Adapters here: lora, and qlora beside quantised weights.")
    elif adapter == "qlora" or (adapter and four):
        quantised(draft, "adapter", adapter, 4)
    elif adapter and eight:
        quantised(draft, "load_in_8bit", eight, 8)
    elif adapter:
        draft.put("adapter", adapter, "method", "lora")
    else:
        draft.assume("method", "full", "adapter is empty, which is training of every weight")
        return
    draft.rename(_SAME_OF_LORA)
    draft.choose("peft_init_lora_weights", "init_lora_weights", _INITIALISATIONS, "See the field's help for the ways.")
    _take_targets(draft)
    for key, value in dict(draft.take("bnb_config_kwargs") or {}).items():
        if key in ("bnb_4bit_quant_type", "bnb_4bit_use_double_quant"):
            draft.put(f"bnb_config_kwargs.{key}", value, key, value)
        else:
            draft.leave(f"bnb_config_kwargs.{key}", value, "the worker decides it")


def _take_targets(draft: Draft) -> None:
    everything, named = draft.take("lora_target_linear"), draft.take("lora_target_modules")
    if isinstance(named, str) and named not in ("all-linear", "all_linear"):
        draft.refuse("lora_target_modules", named, "target_modules", "Name the modules as a list, or take all-linear.")
    elif everything or isinstance(named, str):
        key, value = ("lora_target_linear", everything) if everything else ("lora_target_modules", named)
        draft.put(key, value, "target_modules", "all-linear")
        if everything and named:
            draft.leave("lora_target_modules", named, "lora_target_linear takes all linear modules, these among them")
    elif named:
        draft.put("lora_target_modules", named, "target_modules", named)
    else:
        draft.assume("target_modules", "all-linear", "neither lora_target_linear nor lora_target_modules is given")


def _take_task(draft: Draft) -> None:
    kind, beta = draft.take("rl"), draft.take("rl_beta") or draft.take("dpo_beta")
    if kind is not None and kind != "dpo":
        draft.refuse("rl", kind, "task", "Preferences are learned by dpo here.")
    elif kind is not None:
        draft.put("rl", kind, "task", "dpo")
        if beta is not None:
            draft.put("rl_beta", beta, "beta", beta)
    if draft.take("train_on_inputs"):
        draft.refuse("train_on_inputs", True, "task", "Of conversations only the answers are learned here.")
    if draft.has("pretraining_dataset"):
        value = draft.take("pretraining_dataset")
        draft.refuse(
            "pretraining_dataset", value, "dataset", "Rows are not streamed: upload them, and take task: text."
        )


def _take_dataset(draft: Draft) -> None:
    found = draft.take("datasets")
    rows = found if isinstance(found, list) else [] if found is None else [found]
    if len(rows) > 1:
        names = [row.get("path") if isinstance(row, Mapping) else row for row in rows]
        draft.refuse("datasets", names, "dataset", ONE_DATASET)
    elif rows:
        only = rows[0] if isinstance(rows[0], Mapping) else {"path": rows[0]}
        draft.put("datasets[0].path", only.get("path"), "dataset", dataset_name(only.get("path")),
                  "the dataset registered under this name")  # fmt: skip
        for key, value in only.items():
            if key == "type" and isinstance(value, str) and value.startswith(_TEXT_TYPES):
                draft.put("datasets[0].type", value, "task", "text")
            elif key != "path":
                draft.leave(f"datasets[0].{key}", value, _OF_UPLOAD)


def _take_checkpointing(draft: Draft) -> None:
    value = draft.take("gradient_checkpointing")
    if value is not None:
        note = "without offloading" if isinstance(value, str) else ""
        draft.put("gradient_checkpointing", value, "gradient_checkpointing", bool(value), note)
    options = draft.take("gradient_checkpointing_kwargs")
    if options:
        draft.leave("gradient_checkpointing_kwargs", options, "the worker decides it")


def _assume(draft: Draft) -> None:
    """axolotl's defaults where the spec has others."""
    default = "not given; this is axolotl's default"
    draft.assume("per_device_train_batch_size", 1, default)
    draft.assume("optim", "adamw_torch_fused", default)
    draft.assume("gradient_checkpointing", False, default)
    draft.assume("overlong_rows", "drop", "axolotl drops rows beyond sequence_len unless told otherwise")
    if draft.recipe.values.get("method") != "full":
        draft.assume("lora_dropout", 0.0, default)
