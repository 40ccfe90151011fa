"""What LoRA trains is counted without building it, and equals what peft builds."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.core.jobs.spec import TrainingSpec
from app.core.planning.families import read_architecture
from app.core.planning.trainable import adapter_file_bytes, count_trainable
from tests.core.planning.conftest import published

SMALL = {
    "model_type": "qwen2", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 80, "vocab_size": 97, "tie_word_embeddings": False,
}  # fmt: skip


def _spec(**values: Any) -> TrainingSpec:
    return TrainingSpec(base_model="m", dataset="d", **values)


@pytest.mark.parametrize(
    ("model", "values", "trainable"),
    [
        ("llama-3-8b", {"r": 8, "target_modules": ["q_proj", "v_proj"]}, 3_407_872),
        ("llama-3-8b", {"r": 16, "target_modules": ["q_proj", "v_proj"]}, 6_815_744),
        ("llama-3-8b", {"r": 64}, 167_772_160),
        ("llama-3.2-1b", {"r": 8, "target_modules": ["q_proj", "v_proj"]}, 851_968),
        ("llama-3-8b", {"method": "full"}, 8_030_261_248),
    ],
)
def test_counts_of_well_known_models(model: str, values: dict[str, Any], trainable: int) -> None:
    assert count_trainable(read_architecture(published(model)), _spec(**values)).total == trainable


def test_an_adapter_is_as_large_as_its_fp32_weights_and_twice_that_where_it_is_widened() -> None:
    architecture, spec = read_architecture(published("llama-3-8b")), _spec(r=64)
    assert adapter_file_bytes(count_trainable(architecture, spec), spec) == 671_088_640
    pissa = _spec(r=64, init_lora_weights="pissa")
    assert adapter_file_bytes(count_trainable(architecture, pissa), pissa) == 2 * 671_088_640


@pytest.mark.model
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
        {"rank_pattern": {"q_proj": 3, r"layers\.1\.mlp\.up_proj": 5}},
        {"bias": "all"},
        {"bias": "lora_only", "target_modules": ["q_proj", "o_proj"]},
        {"modules_to_save": ["lm_head", "embed_tokens"]},
    ],
    ids=str,
)
def test_counts_are_those_of_peft(values: dict[str, Any]) -> None:
    spec = _spec(r=4, **values)
    assert count_trainable(read_architecture(SMALL), spec).total == _built_by_peft(SMALL, spec)


@pytest.mark.model
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")  # peft sets it right by itself
def test_counts_of_a_model_of_biased_convolutions_are_those_of_peft() -> None:
    config = {"model_type": "gpt2", "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32, "vocab_size": 50}
    for values in ({}, {"bias": "all"}, {"target_modules": ["c_proj"], "bias": "lora_only"}):
        spec = _spec(r=2, **values)
        assert count_trainable(read_architecture(config), spec).total == _built_by_peft(config, spec)


def _built_by_peft(config: dict[str, Any], spec: TrainingSpec) -> int:
    from transformers import AutoConfig, AutoModelForCausalLM

    from worker.training.adapters import add_lora

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    return sum(p.numel() for p in add_lora(model, spec, "m").parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"target_modules": ["w_proj"]}, "target_modules", "unknown w_proj; the model has: down_proj"),
        ({"target_modules": []}, "target_modules", "is empty"),
        ({"modules_to_save": ["score"]}, "modules_to_save", "cannot be planned with score"),
    ],
)
def test_modules_that_the_model_does_not_have_are_named(values: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        count_trainable(read_architecture(SMALL), _spec(**values))
    assert caught.value.faults[0].field == field
    assert message in caught.value.faults[0].message


def test_a_tied_head_cannot_be_trained_whole() -> None:
    with pytest.raises(InvalidInput, match="share one weight"):
        count_trainable(read_architecture(published("llama-3.2-1b")), _spec(modules_to_save=["lm_head"]))
