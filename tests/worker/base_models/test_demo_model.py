"""The demo model's real GGUF, converted and asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.core.demo import find_demo_gguf
from app.core.models.gguf_facts import inspect_gguf
from app.core.models.inspect import inspect_folder
from tests.worker.tiny import make_context
from worker.base_models.importer import run_import
from worker.inference.generate import run_generate

pytestmark = [pytest.mark.model, pytest.mark.demo]


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A conversion from scratch."""
    file = find_demo_gguf()
    assert file is not None, "the demo model's package is not installed"
    folder = tmp_path_factory.mktemp("demo")
    source = {"kind": "gguf", "path": str(file)}
    payload = {"model_id": 1, "name": "demo", "source": source, "target": str(folder / "1"), "cache": None}
    return run_import(make_context(folder / "job", "import", payload))


def test_demo_model_is_what_its_card_says(summary: dict[str, Any]) -> None:
    assert summary["architecture"] == "LlamaForCausalLM"
    assert summary["parameters"] == 134_515_008
    assert summary["dtype"] == "bfloat16"
    assert summary["chat_template"] is True
    assert summary["max_length"] == 8192


def test_header_tells_what_the_conversion_makes(summary: dict[str, Any]) -> None:
    """Jobs that wait for the import are checked against it."""
    file = find_demo_gguf()
    assert file is not None
    before, after = inspect_gguf(file), inspect_folder(Path(summary["path"]))
    assert before.linear_modules == after.linear_modules == summary["linear_modules"]
    for name in ("architecture", "parameters", "max_length", "has_chat_template"):
        assert getattr(before, name) == getattr(after, name), name


def test_each_digit_is_a_token_as_the_model_was_trained(summary: dict[str, Any]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(summary["path"])
    assert tokenizer.tokenize("a  2024") == ["a", "ĠĠ", "2", "0", "2", "4"]
    assert tokenizer.tokenize("3.14") == ["3", ".", "1", "4"]


def test_demo_model_knows_the_capital_of_france(summary: dict[str, Any], tmp_path: Path) -> None:
    payload = {
        "base_model": {"path": summary["path"]},
        "adapter_path": None,
        "prompt": "What is the capital of France?",
        "max_new_tokens": 24,
        "temperature": 0.0,
    }
    answer = run_generate(make_context(tmp_path, "playground", payload))
    assert answer == {"text": "The capital of France is Paris.", "tokens": 8, "stop_reason": "eos"}
