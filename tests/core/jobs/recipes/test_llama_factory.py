"""LLaMA-Factory's YAML as a spec: what is mapped, assumed, left out and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core.jobs.recipes.llama_factory import read_llama_factory
from app.core.jobs.recipes.read import read_recipe
from app.core.jobs.spec import parse_spec

FIXTURE = Path(__file__).parents[3] / "fixtures" / "recipes" / "llama-factory-sft.yaml"
SMALL = {"model_name_or_path": "tiny", "dataset": "small", "stage": "sft", "finetuning_type": "lora"}


def test_a_whole_file_becomes_a_valid_spec() -> None:
    recipe = read_recipe(FIXTURE.read_text())
    assert recipe.program == "LLaMA-Factory"
    assert recipe.faults == []
    spec = parse_spec(recipe.values)
    assert (spec.base_model, spec.dataset, spec.task) == ("Qwen/Qwen2.5-7B-Instruct", "house_style", "sft")
    assert (spec.method, spec.r, spec.lora_alpha, spec.lora_dropout) == ("qlora", 16, 32, 0)
    assert (spec.target_modules, spec.modules_to_save) == (["q_proj", "v_proj"], ["embed_tokens", "lm_head"])
    assert (spec.max_length, spec.packing, spec.eval_fraction, spec.eval_max_rows) == (3072, True, 0.5, 200)
    assert (spec.learning_rate, spec.lr_scheduler_type, spec.warmup_ratio) == (1e-4, "cosine", 0.1)
    assert (spec.bf16, spec.gradient_checkpointing) == ("auto", True)


def test_every_key_of_a_whole_file_is_accounted_for() -> None:
    recipe = read_recipe(FIXTURE.read_text())
    told = {line.key for line in (*recipe.mapped, *recipe.left_out)} | set(recipe.empty)
    # `finetuning_type` and `eval_strategy: steps` say what is so anyway; the bits decide the method.
    assert set(yaml.safe_load(FIXTURE.read_text())) - told == {"finetuning_type", "eval_strategy"}
    left = {line.key: line.note for line in recipe.left_out}
    assert "chat template" in left["template"]
    assert "all rows" in left["max_samples"]
    assert "never run" in left["trust_remote_code"]
    assert "bfloat16" in left["fp16"]


def test_defaults_that_differ_are_assumed_and_told() -> None:
    recipe = read_llama_factory(SMALL)
    told = {line.key: line.value for line in recipe.assumed}
    assert told == {
        "eval_fraction": "0",
        "warmup_ratio": "0",
        "logging_steps": "500",
        "save_steps": "500",
        "max_length": "2048",
        "per_device_train_batch_size": "8",
        "num_train_epochs": "3",
        "learning_rate": "5e-05",
        "lr_scheduler_type": "linear",
        "gradient_checkpointing": "true",
        "r": "8",
        "lora_alpha": "16",
        "lora_dropout": "0",
    }
    parse_spec(recipe.values)


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"stage": "pt"}, {"task": "text"}),
        ({"stage": "dpo", "pref_beta": 0.2, "pref_loss": "sigmoid"}, {"task": "dpo", "beta": 0.2}),
        ({"finetuning_type": "full"}, {"method": "full"}),
        ({"quantization_bit": 8}, {"method": "qlora", "load_in_8bit": True}),
        ({"pissa_init": True, "pissa_iter": -1}, {"init_lora_weights": "pissa"}),
        ({"max_steps": -1}, {}),
        ({"max_steps": 100, "warmup_steps": 5}, {"max_steps": 100, "warmup_ratio": 0.05}),
        ({"val_size": 0.1, "eval_strategy": "no"}, {"eval_fraction": 0.0}),
        ({"disable_gradient_checkpointing": True}, {"gradient_checkpointing": False}),
    ],
)
def test_keys_that_are_spelled_otherwise_are_mapped(changes: dict[str, Any], values: dict[str, Any]) -> None:
    recipe = read_llama_factory({**SMALL, **changes})
    assert {name: recipe.values.get(name) for name in values} == values
    assert recipe.faults == []
    parse_spec(recipe.values)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"stage": "ppo"}, "task", "stage: ppo"),
        ({"finetuning_type": "freeze"}, "method", "finetuning_type: freeze"),
        ({"quantization_bit": 3}, "method", "quantization_bit: 3"),
        ({"quantization_bit": 4, "quantization_method": "hqq"}, "method", "quantization_method: hqq"),
        ({"pref_loss": "simpo"}, "task", "pref_loss: simpo"),
        ({"pref_ftx": 0.5}, "task", "pref_ftx: 0.5"),
        ({"mask_history": True}, "task", "mask_history: true"),
        ({"dataset": "a, b"}, "dataset", "dataset: ['a', 'b']"),
        ({"optim": "adafactor"}, "optim", "optim: adafactor"),
        ({"lr_scheduler_type": "polynomial"}, "lr_scheduler_type", "polynomial"),
        ({"pissa_init": True, "pissa_iter": 4}, "init_lora_weights", "pissa_iter: 4"),
    ],
)
def test_values_without_an_equivalent_are_refused_by_name(changes: dict[str, Any], field: str, words: str) -> None:
    (fault,) = read_llama_factory({**SMALL, **changes}).faults
    assert fault.field == field
    assert words in fault.message
    assert fault.advice
