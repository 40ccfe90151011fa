"""What cannot be exported as GGUF is refused with the reason, from the model's JSON files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.core.exports.gguf_rules import gguf_faults, pre_tokenizer_name

CONFIG = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048, "rope_theta": 1e4}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
TOKENIZER = {"model": {"type": "BPE"}, "pre_tokenizer": BYTES}
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write(folder: Path, config: dict[str, Any], tokenizer: dict[str, Any] = TOKENIZER) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)}}


def split(regex: str, behaviour: str = "Isolated") -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behaviour}


def test_a_plain_llama_passes(tmp_path: Path) -> None:
    assert list(gguf_faults(write(tmp_path, CONFIG))) == []
    assert list(gguf_faults(write(tmp_path, {**CONFIG, "sliding_window": 512, "use_sliding_window": False}))) == []


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel is not one of the architectures"),
        ({"architectures": None}, "no architecture is not one of"),
        ({"attention_bias": True}, "has biases"),
        ({"mlp_bias": True}, "has biases"),
        ({"sliding_window": 512}, "sliding window of 512 tokens"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "scaled by 'yarn'"),
        ({"hidden_act": "gelu"}, "activation is gelu"),
    ],
)
def test_what_has_no_place_in_a_gguf_is_named(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    (fault,) = gguf_faults(write(tmp_path, {**CONFIG, **changed}))
    assert reason in fault


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"model": {"type": "Unigram"}},
        {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Metaspace"}},
        {"model": {"type": "BPE"}, "pre_tokenizer": None},
        {"model": {"type": "BPE"}, **sequence(split("x+"), BYTES)},
        {},
    ],
)
def test_a_tokenizer_that_llama_cpp_would_read_otherwise_is_refused(tmp_path: Path, tokenizer: dict[str, Any]) -> None:
    (fault,) = gguf_faults(write(tmp_path, CONFIG, tokenizer))
    assert "would read other tokens" in fault


def test_ways_of_splitting_have_llama_cpp_s_names() -> None:
    digits = {"type": "Digits", "individual_digits": True}
    assert pre_tokenizer_name(TOKENIZER) == "gpt-2"
    assert pre_tokenizer_name(sequence(digits, BYTES)) == "smollm"
    assert pre_tokenizer_name(sequence(split(QWEN2), BYTES)) == "qwen2"
    assert pre_tokenizer_name(sequence(split(QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")), BYTES)) == "llama-bpe"
    assert pre_tokenizer_name(sequence(split(QWEN2, "Removed"), BYTES)) is None
    assert pre_tokenizer_name({"pre_tokenizer": {**BYTES, "add_prefix_space": True}}) is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"config\.json cannot be read"):
        list(gguf_faults(tmp_path))
