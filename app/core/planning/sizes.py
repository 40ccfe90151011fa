"""Sizes as a model's config.json tells them, held to what is possible; the file may be damaged, or hostile."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.core.errors import Fault, InvalidInput
from app.core.planning.architecture import FIELD

_LIMITS = {"num_hidden_layers": 1_000, "n_layer": 1_000, "vocab_size": 10_000_000}
_LIMIT = 1_000_000  # of any other
_SHOWN = 1 << 64  # a larger number is not written out: Python itself refuses very long ones


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that every family spells alike, and the whole config for what it does not."""

    config: Mapping[str, Any]
    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.key_value_heads * self.head_dim


def read_sizes(config: Mapping[str, Any], head_dim: int | None) -> Sizes:
    """Raises: InvalidInput for a size that cannot be, alone or beside another."""
    hidden, heads = read_size(config, "hidden_size"), read_size(config, "num_attention_heads")
    key_value_heads = read_size(config, "num_key_value_heads", heads)
    if heads % key_value_heads:
        raise refused(f"num_attention_heads = {heads} and num_key_value_heads = {key_value_heads}, which do not divide")
    return Sizes(
        config,
        read_size(config, "num_hidden_layers"),
        hidden,
        heads,
        key_value_heads,
        read_size(config, "head_dim", head_dim or hidden // heads),
        read_size(config, "intermediate_size"),
        read_size(config, "vocab_size"),
    )


def read_size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A whole number from 1 to what is possible. Raises: InvalidInput."""
    value = default if config.get(name) is None else config[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LIMITS.get(name, _LIMIT):
        raise refused(f"{name} = {shown(value)}")
    return value


def refused(what: str) -> InvalidInput:
    """What a config says that no model can have."""
    return InvalidInput([Fault(FIELD, f"cannot be planned: its config.json says {what}")])


def shown(value: Any) -> str:
    """In some words at most, whatever it is."""
    if isinstance(value, int) and abs(value) >= _SHOWN:
        return f"a number of {value.bit_length()} bits"
    return reprlib.repr(value)[:60]


def read_window(config: Mapping[str, Any]) -> int | None:
    """Where the config says none, what transformers takes then: 4,096 in some families."""
    if not read_flag(config, "use_sliding_window", not str(config["model_type"]).startswith("qwen")):
        return None
    usual = 4096 if config["model_type"] in ("mistral", "gemma2", "gemma3_text") else None
    return (
        read_size(config, "sliding_window")
        if config.get("sliding_window") is not None
        else (usual if "sliding_window" not in config else None)
    )


def read_flag(config: Mapping[str, Any], name: str, default: bool) -> bool:
    return bool(config.get(name, default))


def read_positions(config: Mapping[str, Any], name: str) -> int | None:
    return read_size(config, name) if config.get(name) is not None else None
