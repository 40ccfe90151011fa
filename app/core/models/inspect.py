"""What a model folder holds, read from its config and its safetensors headers alone: no weights, no torch."""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.core.errors import Fault, InvalidInput
from app.core.models.own_code import CodeFault, needs_code

_LAYER = re.compile(r"\.(?:layers|h|blocks|block)\.\d+\.")
_MAX_HEADER_BYTES = 100_000_000
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
_POSITIONS = ("max_position_embeddings", "n_positions")
# What reading a damaged header can raise.
_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, struct.error)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the registry keeps of a model."""

    path: str
    architecture: str
    parameters: int
    bytes: int
    max_length: int | None
    linear_modules: list[str]
    has_chat_template: bool
    needs_code: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def inspect_folder(folder: Path, field: str = "path") -> ModelFacts:
    """Raises: InvalidInput that says what the folder lacks."""
    config = _read_json(folder / "config.json", field)
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise InvalidInput(f"{folder} holds no .safetensors file; other weight formats are not loaded.", field=field)
    _require_tokenizer(folder, field)
    shapes: dict[str, list[int]] = {}
    for shard in shards:
        shapes |= read_shapes(shard, field)
    return ModelFacts(
        path=str(folder),
        architecture=_architecture(config, field),
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        bytes=sum(shard.stat().st_size for shard in shards),
        max_length=next((config[name] for name in _POSITIONS if isinstance(config.get(name), int)), None),
        linear_modules=linear_modules(shapes),
        has_chat_template=_has_chat_template(folder, field),
        needs_code=_needs_code(folder, field),
    )


def read_shapes(shard: Path, field: str = "path") -> dict[str, list[int]]:
    """Tensor shapes by name from one safetensors file's header. Raises: InvalidInput for a damaged file."""
    try:
        with shard.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        _refuse_cut(shard, 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0))
        return {name: [int(n) for n in entry["shape"]] for name, entry in tensors.items()}
    except _DAMAGED as error:
        raise InvalidInput(f"{shard.name} is not a readable safetensors file: {error}", field=field) from error


def _refuse_cut(shard: Path, needed_bytes: int) -> None:
    found = shard.stat().st_size
    if found < needed_bytes:
        raise ValueError(f"it is cut short at {found:,} of {needed_bytes:,} bytes")


def linear_modules(shapes: dict[str, list[int]]) -> list[str]:
    """Leaf names of the linear layers inside the blocks (`q_proj`, …): what LoRA can target, in their own order."""
    names: dict[str, None] = {}
    for tensor, shape in shapes.items():
        inside = _LAYER.search(tensor)
        if inside and len(shape) == 2 and tensor.endswith(".weight"):
            names[tensor.removesuffix(".weight").rpartition(".")[2]] = None
    return sorted(names)


def _read_json(path: Path, field: str) -> dict[str, Any]:
    if not path.is_file():
        raise InvalidInput(f"{path.parent} is not a model folder: it has no {path.name}.", field=field)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not valid JSON: {error}", field=field) from error
    if not isinstance(values, dict):
        raise InvalidInput(f"{path} does not hold a JSON object.", field=field)
    return values


def _architecture(config: dict[str, Any], field: str) -> str:
    names = config.get("architectures") or ["unknown"]
    if not isinstance(names, list) or not isinstance(names[0], str):
        raise InvalidInput(f"`architectures` in config.json is not a list of names but {names!r:.100}.", field=field)
    return names[0]


def _require_tokenizer(folder: Path, field: str) -> None:
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
        known = ", ".join(" with ".join(names) for names in _TOKENIZERS)
        message = f"{folder} has no tokenizer: none of {known}."
        raise InvalidInput([Fault(field, message, advice="Copy the tokenizer's files next to the weights.")])


def _has_chat_template(folder: Path, field: str) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    tokenizer = folder / "tokenizer_config.json"
    return tokenizer.is_file() and bool(_read_json(tokenizer, field).get("chat_template"))


def _needs_code(folder: Path, field: str) -> bool:
    try:
        return needs_code(folder)
    except CodeFault as error:
        raise InvalidInput(str(error), field=field) from error
