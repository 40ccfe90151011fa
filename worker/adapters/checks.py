"""Whether an adapter fits a base model: by its configuration and its tensors' shapes, no weight is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from app.core.adapters.fields import CONFIG, WEIGHTS
from app.core.errors import InvalidInput
from app.core.models.inspect import read_shapes
from worker.adapters.private import public_name
from worker.adapters.tensors import Shapes, contradictions, lora_tensors
from worker.adapters.unpack import AdapterError

_SHOWN = 3


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json. Raises: AdapterError where it is no LoRA adapter of a language model."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, task = config["peft_type"], config.get("task_type")
        _ = config["base_model_name_or_path"]
        for pattern in config.get("rank_pattern") or {}:
            re.compile(pattern)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, re.error) as error:
        raise AdapterError(f"{CONFIG} is not that of a peft adapter: {error}") from error
    if kind != "LORA" or task not in (None, "CAUSAL_LM"):
        raise AdapterError(f"It is an adapter of the kind {kind} for {task}; LoRA for CAUSAL_LM is imported.")
    if config.get("auto_mapping"):
        raise AdapterError(f"{CONFIG} asks for Python code of its own (auto_mapping), which is never run here.")
    return config


def require_base(config: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    """Raises: AdapterError where the adapter names another base model; nothing is fetched to find out."""
    named = str(config["base_model_name_or_path"] or "")
    if not named:
        raise AdapterError(
            f"{CONFIG} does not name the base model that the adapter was trained on.",
            advice=f"If it is {base['name']}, set base_model_name_or_path to that.",
        )
    ours = {str(base[key]) for key in ("name", "hub_id", "path") if base.get(key)}
    last = {PurePosixPath(each).name.lower() for each in ours}
    if named in ours or PurePosixPath(public_name(named)).name.lower() in last:
        return
    raise AdapterError(
        f"The adapter was trained on {named!r:.200}, not on {base['name']}.",
        advice=f"Register that model first and import the adapter onto it; if {base['name']} is a copy of it, set "
        f"base_model_name_or_path in {CONFIG} to {base['name']!r}.",
    )


def require_fit(folder: Path, config: Mapping[str, Any], base_path: Path) -> int:
    """Every tensor has its place in the base model; returns how many there are. Raises: AdapterError."""
    try:
        adapter = read_shapes(folder / WEIGHTS)
        base: dict[str, list[int]] = {}
        for shard in sorted(base_path.glob("*.safetensors")):
            base |= read_shapes(shard)
    except InvalidInput as error:
        raise AdapterError("; ".join(fault.message for fault in error.faults)) from error
    if not adapter:
        raise AdapterError(f"{WEIGHTS} holds no tensor.")
    transposed = bool(config.get("fan_in_fan_out"))
    _refuse("The adapter does not fit the base model", list(_misfits(adapter, base, transposed)))
    _refuse(f"The adapter's tensors are not what its {CONFIG} says", list(contradictions(adapter, base, config)))
    return len(adapter)


def _refuse(what: str, faults: list[str]) -> None:
    """Raises: AdapterError with the first of the faults, where there are any."""
    if faults:
        more = f", and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise AdapterError(f"{what}: {'; '.join(faults[:_SHOWN])}{more}.")


def _misfits(adapter: Shapes, base: Shapes, transposed: bool) -> Iterator[str]:
    """Biases, magnitudes and modules that were trained whole are compared when they are loaded."""
    for module, side, shape in lora_tensors(adapter):
        weight = base.get(f"{module}.weight")
        if weight is None:
            yield f"it has no {module}"
        elif side in ("A", "B") and len(weight) == 2:
            out, into = weight[::-1] if transposed else weight
            wanted, found = (into, shape[-1]) if side == "A" else (out, shape[0])
            if wanted != found:
                yield f"{module} is {out} by {into}, and lora_{side} has {found} where {wanted} fit"
