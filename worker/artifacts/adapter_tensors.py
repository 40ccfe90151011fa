"""An adapter's folder in the terms of its base model: which weights it adds to, and which it replaces.

Only what is known to mean what is done here is taken: whatever else stands in the configuration is a reason to leave
the merge to peft.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.artifacts.tensors import Stored, list_tensors

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_PARTS = re.compile(r"(.+)\.(lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_magnitude_vector|lora_embedding_[AB])")
_UNDERSTOOD = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_bias", "lora_dropout",
    "modules_to_save", "peft_type", "peft_version", "r", "rank_pattern", "revision", "target_modules", "task_type",
    "use_dora", "use_rslora",
}  # fmt: skip
_HARMLESS: dict[str, Any] = {"megatron_core": "megatron.core", "qalora_group_size": 16, "loftq_config": {}}
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")  # that leave the base weights alone


class NotStreamable(Exception):
    """Why an adapter is merged through peft."""


@dataclass(slots=True)
class Parts:
    """Of one module: the tensors that LoRA keeps, by their names without the module's."""

    tensors: dict[str, Stored] = field(default_factory=dict)
    scaling: float = 1.0


@dataclass(slots=True)
class AdapterTensors:
    """By module LoRA's parts, by parameter what is replaced whole, and the modules that peft copied for training."""

    lora: dict[str, Parts]
    replaced: dict[str, Stored]
    copied: tuple[str, ...]

    def is_copied(self, parameter: str) -> bool:
        """Whether it belongs to a module that was trained as a copy, so that a tied one keeps its own weight."""
        return parameter.rpartition(".")[0].endswith(self.copied) if self.copied else False


def read_adapter(folder: Path) -> AdapterTensors:
    """Raises: NotStreamable that says what is not known here; ModelLoadError where the file is damaged."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    for name, value in _unknown(config):
        raise NotStreamable(f"its adapter_config.json says {name} = {json.dumps(value)[:80]}")
    found = AdapterTensors({}, {}, tuple(config.get("modules_to_save") or ()))
    for key, stored in list_tensors(folder / WEIGHTS).items():
        _sort_in(found, key, stored)
    for module, parts in found.lora.items():
        parts.scaling = _scaling(config, module, parts)
    return found


def _sort_in(found: AdapterTensors, key: str, stored: Stored) -> None:
    if not key.startswith(_PREFIX):
        raise NotStreamable(f"it has a tensor {key}")
    name = key.removeprefix(_PREFIX)
    part = _PARTS.fullmatch(name)
    if part is not None:
        found.lora.setdefault(part[1], Parts()).tensors[part[2]] = stored
    elif "lora_" in name or "token_adapter" in name:
        raise NotStreamable(f"it has a tensor {key}")
    else:
        found.replaced[name.replace(".base_layer.", ".")] = stored


def _unknown(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is set in the configuration and not known to be dealt with."""
    if config.get("peft_type") != "LORA":
        yield "peft_type", config.get("peft_type")
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        yield "init_lora_weights", config["init_lora_weights"]
    for name, value in config.items():
        unset = value in (None, False, [], {}) or _HARMLESS.get(name) == value
        if name not in _UNDERSTOOD and name != "init_lora_weights" and not unset:
            yield name, value


def _scaling(config: Mapping[str, Any], module: str, parts: Parts) -> float:
    """alpha / r, or alpha / sqrt(r) where it is rank-stabilised. Source: https://arxiv.org/abs/2312.03732."""
    a = parts.tensors.get("lora_A.weight") or parts.tensors.get("lora_embedding_A")
    if a is None:
        raise NotStreamable(f"{module} has no lora_A")
    rank = _by_pattern(config.get("rank_pattern"), module, config["r"])
    if rank != a.shape[0]:
        raise NotStreamable(f"{module} has rank {a.shape[0]}, and its configuration says {rank}")
    alpha = _by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    return float(alpha / math.sqrt(rank)) if config.get("use_rslora") else float(alpha / rank)


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, otherwise: Any) -> Any:
    """The value of the first pattern that matches the module's name from a dot on, as peft matches it."""
    return next((v for p, v in (patterns or {}).items() if re.match(rf"(.*\.)?({p})$", module)), otherwise)
