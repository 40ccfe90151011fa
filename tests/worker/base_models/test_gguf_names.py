"""What a GGUF's header tells beforehand is what transformers makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from app.core.models.gguf_facts import inspect_gguf
from app.core.models.inspect import linear_modules
from tests.core.models.gguf_file import write_gguf
from worker.training.model import list_linear_modules

pytestmark = pytest.mark.model

# model_type in transformers, and what its config needs to be small
SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 64}
GATED = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "pad_token_id": 0}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GATED),
    "qwen2": ("qwen2", GATED),
    "qwen3": ("qwen3", {**GATED, "head_dim": 8}),
    "gemma2": ("gemma2", {**GATED, "head_dim": 8}),
    "gemma3": ("gemma3_text", {**GATED, "head_dim": 8}),
    "stablelm": ("stablelm", GATED),
    "nemotron": ("nemotron", GATED),
    "starcoder2": ("starcoder2", GATED),
    "phi3": ("phi3", GATED),
    "falcon": ("falcon", SMALL),
    "bloom": ("bloom", SMALL),
    "gpt2": ("gpt2", {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 64}),
}


def _model(kind: str) -> Any:
    model_type, small = CONFIGS[kind]
    factory: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return factory.from_config(AutoConfig.for_model(model_type, **small))


def _stored_shapes(kind: str, model: Any) -> dict[str, list[int]]:
    """The matrices as llama.cpp's converter names them."""
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(architecture, 2)
    stored = {
        names.get_name(name, try_suffixes=(".weight",)): list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if tensor.ndim > 1 and name != "lm_head.weight"  # mostly tied, and outside the blocks
    }
    assert None not in stored, "a matrix has no name in a GGUF"
    return stored


@pytest.mark.parametrize("kind", CONFIGS)
def test_modules_and_class_are_those_of_the_converted_model(kind: str, tmp_path: Path) -> None:
    model = _model(kind)
    file = write_gguf(tmp_path / "model.gguf", _stored_shapes(kind, model), {"general.architecture": kind})
    facts = inspect_gguf(file)
    assert facts.linear_modules == list_linear_modules(model) != []
    assert facts.linear_modules == linear_modules({name: list(t.shape) for name, t in model.state_dict().items()})
    assert facts.architecture == type(model).__name__
