"""What a GGUF file's header tells of the model before its conversion: enough to check a job that waits for it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.core.models.gguf_header import read_header

_BLOCK_MATRIX = re.compile(r"blk\.\d+\.(.+)\.weight")
_LLAMA = {
    "attn_q": "q_proj",
    "attn_k": "k_proj",
    "attn_v": "v_proj",
    "attn_output": "o_proj",
    "ffn_gate": "gate_proj",
    "ffn_up": "up_proj",
    "ffn_down": "down_proj",
}
_FALCON = {
    "attn_qkv": "query_key_value",
    "attn_output": "dense",
    "ffn_up": "dense_h_to_4h",
    "ffn_down": "dense_4h_to_h",
}
# The class of each architecture in transformers, and what it calls a block's matrices.
_ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "llama": ("LlamaForCausalLM", _LLAMA),
    "qwen2": ("Qwen2ForCausalLM", _LLAMA),
    "qwen3": ("Qwen3ForCausalLM", _LLAMA),
    "gemma2": ("Gemma2ForCausalLM", _LLAMA),
    "gemma3": ("Gemma3ForCausalLM", _LLAMA),
    "stablelm": ("StableLmForCausalLM", _LLAMA),
    "nemotron": ("NemotronForCausalLM", _LLAMA),
    "starcoder2": ("Starcoder2ForCausalLM", {**_LLAMA, "ffn_up": "c_fc", "ffn_down": "c_proj"}),
    "phi3": ("Phi3ForCausalLM", {**_LLAMA, "attn_qkv": "qkv_proj", "ffn_up": "gate_up_proj"}),
    "falcon": ("FalconForCausalLM", _FALCON),
    "bloom": ("BloomForCausalLM", _FALCON),
    "gpt2": (
        "GPT2LMHeadModel",
        {"attn_qkv": "c_attn", "attn_output": "c_proj", "ffn_up": "c_fc", "ffn_down": "c_proj"},
    ),
}
_UNKNOWN: tuple[None, Mapping[str, str]] = (None, {})


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """What is known of a model that is still being imported. No modules: its architecture's names are not known."""

    architecture: str | None
    parameters: int
    max_length: int | None
    linear_modules: list[str]
    has_chat_template: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def inspect_gguf(path: Path, field: str = "path") -> GgufFacts:
    """Read the header alone. Raises: InvalidInput for what is no GGUF or a damaged one."""
    header = read_header(path, field)
    kind = str(header.metadata.get("general.architecture"))
    name, modules = _ARCHITECTURES.get(kind, _UNKNOWN)
    max_length = header.metadata.get(f"{kind}.context_length")
    return GgufFacts(
        architecture=name,
        parameters=sum(math.prod(shape) for tensor, shape in header.shapes.items() if tensor != "rope_freqs.weight"),
        max_length=max_length if isinstance(max_length, int) else None,
        linear_modules=_linear_modules(header.shapes, modules),
        has_chat_template="tokenizer.chat_template" in header.metadata,
    )


def _linear_modules(shapes: Mapping[str, tuple[int, ...]], modules: Mapping[str, str]) -> list[str]:
    """Sorted names as transformers gives them; none where one is unknown, so that no list is shown in part."""
    matches = (_BLOCK_MATRIX.fullmatch(tensor) for tensor, shape in shapes.items() if len(shape) > 1)
    found = {match[1] for match in matches if match is not None}
    return sorted({modules[part] for part in found}) if found <= modules.keys() else []
