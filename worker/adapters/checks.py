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
from worker.adapters.unpack import AdapterError

_PREFIX = "base_model.model."
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>A|B|embedding_A|embedding_B)(?:\.weight)?")
_SHOWN = 3

Shapes = Mapping[str, list[int]]


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json. Raises: AdapterError where it is no LoRA adapter of a language model."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, task = config["peft_type"], config.get("task_type")
        _ = config["base_model_name_or_path"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise AdapterError(f"{CONFIG} is not that of a peft adapter: {error}") from error
    if kind != "LORA" or task not in (None, "CAUSAL_LM"):
        raise AdapterError(f"It is an adapter of the kind {kind} for {task}; LoRA for CAUSAL_LM is imported.")
    if config.get("auto_mapping"):
        raise AdapterError(f"{CONFIG} asks for Python code of its own (auto_mapping), which is never run here.")
    return config


def require_base(config: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    """Raises: AdapterError where the adapter names another base model; nothing is fetched to find out."""
    named = str(config["base_model_name_or_path"] or "")
    ours = {str(base[key]) for key in ("name", "hub_id", "path") if base.get(key)}
    last = {PurePosixPath(each).name.lower() for each in ours}
    if named in ours or PurePosixPath(named).name.lower() in last:
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
        raise AdapterError(error.message) from error
    if not adapter:
        raise AdapterError(f"{WEIGHTS} holds no tensor.")
    faults = list(_misfits(adapter, base, bool(config.get("fan_in_fan_out"))))
    if faults:
        more = f", and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise AdapterError(f"The adapter does not fit the base model: {'; '.join(faults[:_SHOWN])}{more}.")
    return len(adapter)


def _misfits(adapter: Shapes, base: Shapes, transposed: bool) -> Iterator[str]:
    for name, shape in adapter.items():
        match = _LORA.fullmatch(name.removeprefix(_PREFIX))
        if match is None:
            continue  # biases, magnitudes, modules that were trained whole: compared when they are loaded
        weight = base.get(f"{match['module']}.weight")
        if weight is None:
            yield f"it has no {match['module']}"
        elif match["side"] in ("A", "B") and len(weight) == 2:
            out, into = weight[::-1] if transposed else weight
            wanted, found = (into, shape[-1]) if match["side"] == "A" else (out, shape[0])
            if wanted != found:
                yield f"{match['module']} is {out} by {into}, and lora_{match['side']} has {found} where {wanted} fit"
