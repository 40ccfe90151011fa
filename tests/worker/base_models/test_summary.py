"""The summary's figures equal those of the loaded model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from app.core.errors import ModelLoadError
from tests.worker.tiny import save_tiny_model
from worker.base_models.summary import summarise

pytestmark = pytest.mark.model
SEVEN = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


@pytest.mark.parametrize("tied", [True, False])
def test_figures_equal_the_loaded_models(tmp_path: Path, tied: bool) -> None:
    folder = save_tiny_model(tmp_path, tied=tied)
    summary = summarise(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert summary == {
        "architecture": "LlamaForCausalLM",
        "parameters": model.num_parameters(),
        "path": str(folder),
        "bytes": (folder / "model.safetensors").stat().st_size,
        "linear_modules": SEVEN,
        "dtype": "float32",
        "chat_template": True,
        "max_length": 256,
    }


def test_untied_head_counts_but_is_no_target(tmp_path: Path) -> None:
    tied = summarise(save_tiny_model(tmp_path / "tied"))
    untied = summarise(save_tiny_model(tmp_path / "untied", tied=False))
    vocabulary = json.loads((tmp_path / "tied" / "config.json").read_text())["vocab_size"]
    assert untied["parameters"] - tied["parameters"] == vocabulary * 32
    assert "lm_head" not in untied["linear_modules"]


def test_missing_chat_template_shows(tmp_path: Path) -> None:
    assert summarise(save_tiny_model(tmp_path, chat_template=None))["chat_template"] is False


def test_architecture_that_generates_no_text_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ModelLoadError, match="not a causal language model"):
        summarise(folder)


def test_missing_tokenizer_is_named(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelLoadError, match="The tokenizer in"):
        summarise(folder)


def test_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match="no end-of-sequence token"):
        summarise(folder)
