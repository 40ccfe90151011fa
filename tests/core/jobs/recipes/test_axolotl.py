"""axolotl's YAML as a spec: what is mapped, assumed, left out and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core.jobs.recipes.axolotl import read_axolotl
from app.core.jobs.recipes.read import read_recipe
from app.core.jobs.recipes.recipe import Line, Recipe
from app.core.jobs.spec import parse_spec

FIXTURE = Path(__file__).parents[3] / "fixtures" / "recipes" / "axolotl-qlora.yml"
SMALL = {"base_model": "tiny", "datasets": [{"path": "small", "type": "chat_template"}], "adapter": "lora", "lora_r": 8,
         "lora_alpha": 16, "micro_batch_size": 2, "num_epochs": 1, "learning_rate": 1e-4}  # fmt: skip


def _keys(lines: list[Line]) -> set[str]:
    return {line.key for line in lines}


def _read(**changes: Any) -> Recipe:
    return read_axolotl({name: value for name, value in {**SMALL, **changes}.items() if value is not ...})


def test_a_whole_file_becomes_a_valid_spec() -> None:
    recipe = read_recipe(FIXTURE.read_text())
    assert recipe.program == "axolotl"
    assert recipe.faults == []
    spec = parse_spec(recipe.values)
    assert (spec.base_model, spec.dataset) == ("NousResearch/Meta-Llama-3.1-8B", "tickets-2026")
    assert (spec.method, spec.load_in_8bit, spec.r, spec.lora_alpha, spec.use_rslora) == ("qlora", False, 32, 16, True)
    assert (spec.max_length, spec.packing, spec.overlong_rows, spec.eval_fraction) == (4096, True, "truncate", 0.04)
    assert (spec.per_device_train_batch_size, spec.gradient_accumulation_steps, spec.num_train_epochs) == (2, 8, 3)
    assert (spec.learning_rate, spec.optim, spec.weight_decay) == (2e-4, "paged_adamw_8bit", 0.01)
    assert (spec.max_steps, spec.warmup_ratio, spec.eval_steps, spec.save_steps) == (600, 0.05, 60, 200)
    assert spec.gradient_checkpointing is True


def test_every_key_of_a_whole_file_is_accounted_for() -> None:
    recipe = read_recipe(FIXTURE.read_text())
    given = set(yaml.safe_load(FIXTURE.read_text()))
    told = _keys(recipe.mapped) | _keys(recipe.left_out) | set(recipe.empty)
    # `load_in_4bit` goes with `adapter`; rows of `datasets` are told one by one.
    assert given - told == {"datasets", "load_in_8bit", "load_in_4bit"}
    left = {line.key: line.note for line in recipe.left_out}
    assert "other services" in left["wandb_project"]
    assert "both matrices" in left["loraplus_lr_ratio"]
    assert left["my_own_key"] == "nothing here corresponds to it"
    assert "uploaded" in left["datasets[0].field_messages"]
    assert {"wandb_entity", "lora_model_dir", "trust_remote_code"} <= set(recipe.empty)


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"adapter": None}, {"method": "full"}),
        ({"load_in_8bit": True}, {"method": "qlora", "load_in_8bit": True}),
        ({"rl": "dpo", "rl_beta": 0.3}, {"task": "dpo", "beta": 0.3}),
        ({"datasets": [{"path": "org/books.parquet", "type": "completion"}]}, {"dataset": "books", "task": "text"}),
        ({"lora_target_modules": ["q_proj", "v_proj"]}, {"target_modules": ["q_proj", "v_proj"]}),
        ({"val_set_size": 300}, {"eval_fraction": 0.5, "eval_max_rows": 300}),
        ({"optimizer": "adamw_bnb_8bit", "fp16": True}, {"optim": "adamw_8bit", "bf16": "auto"}),
        ({"peft_init_lora_weights": "pissa", "peft_use_dora": True}, {"init_lora_weights": "pissa", "use_dora": True}),
        ({"max_steps": 200, "warmup_steps": 10}, {"max_steps": 200, "warmup_ratio": 0.05}),
        ({"warmup_steps": 10}, {"warmup_ratio": 0.03}),
    ],
)
def test_keys_that_are_spelled_otherwise_are_mapped(changes: dict[str, Any], values: dict[str, Any]) -> None:
    recipe = _read(**changes)
    assert {name: recipe.values.get(name) for name in values} == values
    assert recipe.faults == []
    parse_spec(recipe.values)


def test_defaults_that_differ_are_assumed_and_told() -> None:
    recipe = _read()
    told = {line.key: line.value for line in recipe.assumed}
    assert told == {
        "target_modules": "all-linear",
        "eval_fraction": "0",
        "warmup_ratio": "0.03",
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": "false",
        "overlong_rows": "drop",
        "lora_dropout": "0",
    }


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"rl": "kto"}, "task", "rl: kto"),
        ({"adapter": "llama-adapter"}, "method", "adapter: llama-adapter"),
        ({"optimizer": "muon"}, "optim", "optimizer: muon"),
        ({"lr_scheduler": "rex"}, "lr_scheduler_type", "lr_scheduler: rex"),
        ({"train_on_inputs": True}, "task", "train_on_inputs: true"),
        ({"datasets": [{"path": "a"}, {"path": "b"}]}, "dataset", "datasets: ['a', 'b']"),
        ({"lora_target_modules": "model.layers.*.q_proj"}, "target_modules", "lora_target_modules"),
        ({"peft_init_lora_weights": "loftq"}, "init_lora_weights", "loftq"),
        ({"pretraining_dataset": [{"path": "c4"}]}, "dataset", "pretraining_dataset"),
    ],
)
def test_values_without_an_equivalent_are_refused_by_name(changes: dict[str, Any], field: str, words: str) -> None:
    (fault,) = _read(**changes).faults
    assert fault.field == field
    assert words in fault.message
    assert fault.advice


def test_nonsense_is_no_crash() -> None:
    recipe = _read(optimizer=["a"], warmup_steps="many", eval_steps={}, val_set_size=[], bf16="full", datasets=7)
    assert {fault.field for fault in recipe.faults} == {"optim"}
    assert recipe.values["dataset"] == "7"
