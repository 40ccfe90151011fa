"""Write model folders by hand: a safetensors header says all that is looked at, so there are no weights."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

LLAMA = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048}
SHAPES = {
    "model.embed_tokens.weight": [100, 8],
    "model.layers.0.self_attn.q_proj.weight": [8, 8],
    "model.layers.0.self_attn.v_proj.weight": [4, 8],
    "model.layers.0.self_attn.q_proj.bias": [8],
    "model.layers.0.mlp.down_proj.weight": [8, 16],
    "model.layers.0.input_layernorm.weight": [8],
    "model.layers.1.self_attn.q_proj.weight": [8, 8],
    "model.norm.weight": [8],
}
PARAMETERS = 800 + 64 + 32 + 8 + 128 + 8 + 64 + 8


def write_header(path: Path, header: Any, length: int | None = None) -> Path:
    """A safetensors file of a header alone; bytes are taken as they are."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", length or len(encoded)) + encoded)
    return path


def tensors(shapes: dict[str, list[int]]) -> dict[str, Any]:
    """The header that says these shapes."""
    entries = {name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    return {"__metadata__": {"format": "pt"}, **entries}


def write_model(folder: Path, config: Any = LLAMA, shapes: dict[str, list[int]] | None = None) -> Path:
    """A model folder with one shard and a tokenizer."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    write_header(folder / "model.safetensors", tensors(SHAPES if shapes is None else shapes))
    return folder
