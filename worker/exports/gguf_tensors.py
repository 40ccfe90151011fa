"""A model's tensors as GGUF stores them: names, order of rows, types; made and compared in pieces of bounded size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, get_tensor_name_map
from gguf.constants import MODEL_ARCH, MODEL_ARCH_NAMES
from gguf.quants import quant_shape_to_byte_shape, quantize
from safetensors import safe_open

from app.core.errors import JobError
from app.core.exports.gguf_rules import Family, rope_of

Array = np.ndarray[Any, Any]

_PIECE_ELEMENTS = 16 * 1024**2  # 64 MiB in fp32
_BLOCK = 32  # elements that share a scale in q8_0
_TYPES = {"f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0}
_SUFFIXES = (".weight", ".bias")
ROPE_FACTORS = "rope_freqs.weight"


class ExportError(JobError):
    """The model could not be exported."""

    code = "export"


@dataclass(frozen=True, slots=True)
class Target:
    """One tensor of the GGUF: where it comes from, and how it lies there. Shape as PyTorch orders it."""

    name: str
    source: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    heads: int | None = None  # whose rows are to be put into llama.cpp's order

    @property
    def stored_bytes(self) -> int:
        if self.type is GGMLQuantizationType.Q8_0:
            return math.prod(quant_shape_to_byte_shape(self.shape, self.type))
        return math.prod(self.shape) * (2 if self.type is GGMLQuantizationType.F16 else 4)


class Weights:
    """The safetensors files of a model folder, open, and the tensors that they come to in GGUF."""

    def __init__(self, folder: Path, config: Mapping[str, Any], family: Family, quantization: str) -> None:
        """Raises: ExportError where a tensor has no name in GGUF."""
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        for file in sorted(folder.glob("*.safetensors")):
            opened: Any = self._stack.enter_context(safe_open(file, framework="pt"))
            self._files |= dict.fromkeys(opened.keys(), opened)
        self._config, self._family, self._type = config, family, _TYPES[quantization]
        self.targets = [self._target(source) for source in self._sources()]

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def pieces(self, target: Target) -> Iterator[Array]:
        """The tensor in fp32, in the order of its rows there, a piece at a time."""
        part = self._files[target.source].get_slice(target.source)
        if target.heads is not None or len(target.shape) == 1:
            yield _ordered(_fp32(part[:]), target.heads)
            return
        rows = max(1, _PIECE_ELEMENTS // target.shape[1])
        for start in range(0, target.shape[0], rows):
            yield _fp32(part[start : start + rows])

    def _sources(self) -> list[str]:
        """Tied weights are stored once: llama.cpp takes the embedding where there is no output."""
        tied = self._config.get("tie_word_embeddings")
        return [name for name in sorted(self._files, key=_in_order) if not (tied and name == "lm_head.weight")]

    def _target(self, source: str) -> Target:
        arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == self._family.name)
        names = get_tensor_name_map(MODEL_ARCH(arch), self._config["num_hidden_layers"])
        name = names.get_name(source, try_suffixes=_SUFFIXES)
        if name is None:
            raise ExportError(
                f"{source} has no place in a GGUF of the architecture {self._family.name}.",
                advice="Use the safetensors of the merged model.",
            )
        shape = tuple(self._files[source].get_slice(source).get_shape())
        kind = GGMLQuantizationType.F32 if len(shape) == 1 else self._type
        if kind is GGMLQuantizationType.Q8_0 and shape[-1] % _BLOCK:
            kind = GGMLQuantizationType.F16
        return Target(name, source, shape, kind, self._heads(source))

    def _heads(self, source: str) -> int | None:
        if not self._family.permuted:
            return None
        heads = self._config["num_attention_heads"]
        by_part = {"q_proj": heads, "k_proj": self._config.get("num_key_value_heads", heads)}
        return next((count for part, count in by_part.items() if f".{part}." in source), None)


def encode(piece: Array, target: Target) -> Array:
    """As it is stored. Raises: ExportError where a value does not fit."""
    if target.type is GGMLQuantizationType.F32:
        return piece
    with np.errstate(over="ignore"):
        stored: Array = quantize(piece, target.type)
    fits = np.isfinite(stored).all() if target.type is GGMLQuantizationType.F16 else np.abs(piece).max(initial=0) < 8e6
    if not fits:
        raise ExportError(f"{target.source} holds values that do not fit into {target.type.name.lower()}.")
    return stored


def rope_factors(config: Mapping[str, Any]) -> Array | None:
    """By what llama.cpp divides each rotary frequency, where they are scaled as Llama 3 does; else None.

    Source: transformers' `_compute_llama3_parameters`.
    """
    rope = rope_of(config)
    if rope["rope_type"] != "llama3":
        return None
    size = head_size(config)
    wavelengths = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, size, 2, dtype=np.float64) / size)
    known, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((known / wavelengths - low) / (high - low), 0.0, 1.0)
    factors: Array = (1.0 / ((1 - smooth) / factor + smooth)).astype(np.float32)
    return factors


def head_size(config: Mapping[str, Any]) -> int:
    """Of one attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _fp32(tensor: torch.Tensor) -> Array:
    array: Array = tensor.float().numpy()
    return array


def _ordered(rows: Array, heads: int | None) -> Array:
    """Per head: the halves that transformers rotates against each other become neighbours."""
    if heads is None:
        return rows
    half = rows.shape[0] // heads // 2
    return np.ascontiguousarray(rows.reshape(heads, 2, half, *rows.shape[1:]).swapaxes(1, 2)).reshape(rows.shape)


def _in_order(name: str) -> tuple[int, str]:
    """Blocks by number, what lies outside them first."""
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    return (numbers[0] if numbers else -1, name)
