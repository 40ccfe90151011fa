"""Write GGUF files by hand: a header whose weights are a hole in the file."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LLAMA = {"general.architecture": "llama", "llama.context_length": 2048, "tokenizer.ggml.tokens": ["a", "b", "ü"],
         "tokenizer.ggml.scores": [0.5, 0.25], "tokenizer.chat_template": "{{ messages }}", "x": True}  # fmt: skip
SHAPES = {
    "token_embd.weight": [100, 8],
    "blk.0.attn_q.weight": [8, 8],
    "blk.0.attn_v.weight": [4, 8],
    "blk.0.attn_q.bias": [8],
    "blk.0.attn_norm.weight": [8],
    "blk.0.ffn_down.weight": [8, 16],
    "blk.1.attn_q.weight": [8, 8],
    "output_norm.weight": [8],
    "rope_freqs.weight": [4],
}
PARAMETERS = 800 + 64 + 32 + 8 + 8 + 128 + 64 + 8  # the rotary frequencies are none


def gguf_header(
    shapes: Mapping[str, list[int]] = SHAPES, metadata: Mapping[str, Any] = LLAMA, version: int = 3
) -> bytes:
    """A header; every tensor is F32, at offsets 32 bytes apart."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(shapes), len(metadata))
    keys = b"".join(text(key) + _value(value) for key, value in metadata.items())
    return head + keys + b"".join(_tensor(name, shapes[name], 32 * i) for i, name in enumerate(shapes))


def write_gguf(
    path: Path, shapes: Mapping[str, list[int]] = SHAPES, metadata: Mapping[str, Any] = LLAMA, version: int = 3
) -> Path:
    """A GGUF file that is long enough for its tensors to begin within it."""
    path.write_bytes(gguf_header(shapes, metadata, version) + bytes(32 * len(shapes)))
    return path


def text(value: str) -> bytes:
    """A string as GGUF stores it."""
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        kind, items = (8, b"".join(map(text, value))) if isinstance(value[0], str) else (6, _floats(value))
        return struct.pack("<IIQ", 9, kind, len(value)) + items
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    return struct.pack("<I", 8) + text(value)


def _floats(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def _tensor(name: str, shape: list[int], offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), 0, offset)
