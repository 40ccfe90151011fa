"""Parameters are counted from a config alone, and exactly: as published, and as the real classes have them."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.core.planning.families import read_architecture
from tests.core.planning.conftest import published

PUBLISHED = {
    "llama-3-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b-v0.1": 7_241_732_096,
    "qwen2.5-7b": 7_615_616_512,
    "gemma-2-2b": 2_614_341_888,
    "phi-3-mini": 3_821_079_552,
    "gpt2": 124_439_808,
    "mixtral-8x7b": 46_702_792_704,
}
SMALL = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 12,
    "intermediate_size": 80, "vocab_size": 97, "pad_token_id": 0,
}  # fmt: skip
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    ("mistral", {}),
    ("qwen2", {}),
    ("qwen3", {"attention_bias": True}),
    ("gemma", {}),
    ("gemma2", {}),
    ("gemma3_text", {}),
    ("phi3", {"head_dim": 8}),
    ("mixtral", {"num_local_experts": 3}),
]
LLAMA = published("llama-3-8b")


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_parameters_are_those_that_were_published(name: str, parameters: int) -> None:
    assert read_architecture(published(name)).parameters == parameters


@pytest.mark.model
@pytest.mark.parametrize(("model_type", "changes"), VARIANTS, ids=lambda value: str(value)[:30])
def test_parameters_and_modules_are_those_of_the_real_class(model_type: str, changes: dict[str, Any]) -> None:
    config = _config(model_type, {**SMALL, **changes})
    model = _on_meta(config)
    architecture = read_architecture(config.to_dict())
    assert architecture.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert {
        f"{architecture.layer_prefix}.{layer}.{linear.path}": linear.weights
        for layer in range(architecture.layers)
        for linear in architecture.linears
    } == {name: module.weight.numel() for name, module in model.named_modules() if _is_linear_of_layer(name, module)}


@pytest.mark.model
def test_gpt2_is_counted_as_its_class_has_it() -> None:
    config = _config("gpt2", {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32, "vocab_size": 50})
    assert read_architecture(config.to_dict()).parameters == sum(p.numel() for p in _on_meta(config).parameters())


def _config(model_type: str, values: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type, **values)


def _on_meta(config: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _is_linear_of_layer(name: str, module: Any) -> bool:
    return type(module).__name__ in ("Linear", "Conv1D") and "layers." in name


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "clip"}, "model_type 'clip'"),
        ({"model_type": None}, "model_type None"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers = 1000000000000"),
        ({"hidden_size": 0}, "hidden_size = 0"),
        ({"hidden_size": "4096"}, "hidden_size = '4096'"),
        ({"vocab_size": True}, "vocab_size = True"),
        ({"intermediate_size": None}, "intermediate_size = None"),
        ({"num_attention_heads": 8192}, "head_dim = None"),
    ],
)
def test_what_cannot_be_a_language_model_is_refused_by_its_field(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_architecture({**LLAMA, **changes})
    assert named in caught.value.faults[0].message or "head_dim" in caught.value.faults[0].message
    assert caught.value.faults[0].field == "base_model"
