"""Which models are written as GGUF, judged by their JSON files alone: others are refused before a job is queued.

The `gguf` package (of the llama.cpp project) writes and quantises; what a model's parts are called there, and how its
tokenizer splits text, is decided here. Source: llama.cpp's convert_hf_to_gguf.py and src/llama-vocab.cpp.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.errors import InvalidInput

QUANTIZATIONS = ("f16", "q8_0")
_CASES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {_CASES + r"\p{N}{1,3}" + _REST: "llama-bpe", _CASES + r"\p{N}" + _REST: "qwen2"}
_ROPES = ("default", "llama3", "linear")


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture as GGUF has it."""

    name: str
    permuted: bool = False  # rows of q and k in the order of llama.cpp's rotary embedding
    biased: bool = False  # q, k and v have biases


FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family("llama", permuted=True),
    "MistralForCausalLM": Family("llama", permuted=True),
    "Qwen2ForCausalLM": Family("qwen2", biased=True),
    "Qwen3ForCausalLM": Family("qwen3"),
}


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is no such file. Raises: InvalidInput."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path.name} cannot be read: {error}", field="format") from error
    return values if isinstance(values, dict) else {}


def find_family(config: Mapping[str, Any]) -> Family | None:
    """By the first of config.json's architectures."""
    return FAMILIES.get(str((config.get("architectures") or [None])[0]))


def rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary embedding's parameters, wherever this version of transformers has written them."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    return {**rope, "rope_type": kind, "rope_theta": theta}


def pre_tokenizer_name(tokenizer: Mapping[str, Any]) -> str | None:
    """What llama.cpp calls the way in which a tokenizer.json splits text before merging; None where it knows none."""
    step = tokenizer.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", []) if step.get("type") == "Sequence" else [step]
    kinds = [each.get("type") for each in steps]
    if not kinds or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and steps[0].get("behavior") == "Isolated":
        return _SPLITS.get((steps[0].get("pattern") or {}).get("Regex", ""))
    return None


def split_expression(name: str) -> str | None:
    """The expression by which what llama.cpp calls so splits text; None where it is no single one, or not known."""
    return next((expression for expression, known in _SPLITS.items() if known == name), None)


def gguf_faults(folder: Path) -> Iterator[str]:
    """Why the model of a folder cannot be exported; nothing where it can. Raises: InvalidInput."""
    config, tokenizer = read_object(folder / "config.json"), read_object(folder / "tokenizer.json")
    family = find_family(config)
    if family is None:
        shown = str((config.get("architectures") or ["no architecture"])[0])
        yield f"{shown} is not one of the architectures that are exported: {', '.join(FAMILIES)}."
        return
    yield from _config_faults(config, family)
    if (tokenizer.get("model") or {}).get("type") != "BPE" or pre_tokenizer_name(tokenizer) is None:
        yield (
            "Its tokenizer is not a byte-level BPE that splits text as GPT-2, SmolLM, Llama 3 or Qwen 2 do; "
            "llama.cpp would read other tokens than the model was trained on."
        )


def _config_faults(config: Mapping[str, Any], family: Family) -> Iterator[str]:
    if (config.get("attention_bias") and not family.biased) or config.get("mlp_bias"):
        yield "Its attention or MLP has biases, for which llama.cpp has no place in this architecture."
    window, length = config.get("sliding_window"), config.get("max_position_embeddings", 0)
    if window and window < length and config.get("use_sliding_window", True):
        yield f"It sees through a sliding window of {window:,} tokens, which this export does not carry over."
    rope = rope_of(config)["rope_type"]
    if rope not in _ROPES:
        yield f"Its rotary embedding is scaled by {rope!r}; {', '.join(_ROPES)} are exported."
    if config.get("hidden_act", "silu") != "silu":
        yield f"Its activation is {config['hidden_act']}, not SiLU."
