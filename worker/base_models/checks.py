"""Whether a folder holds a base model that can be trained: read from its JSON files and tensor headers, no torch."""

from __future__ import annotations

import json
import struct
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from app.core.errors import ModelLoadError
from worker.own_code import may_run_code

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format itself


@dataclass(frozen=True, slots=True)
class Weights:
    """The safetensors files of a model. dtype is the one that most elements have, as safetensors spells it (BF16)."""

    files: tuple[Path, ...]
    bytes: int
    dtype: str


def check_config(folder: Path) -> dict[str, Any]:
    """Return config.json.

    Raises: ModelLoadError where it is missing, broken, quantised, or needs code that is not allowed.
    """
    if not folder.is_dir():
        raise ModelLoadError(f"{folder} is not a folder.", advice="Give the folder that holds config.json.")
    if not (folder / CONFIG_FILE).is_file():
        raise ModelLoadError(
            f"{folder} has no {CONFIG_FILE}.", advice="Give a model folder in the transformers format."
        )
    config = read_json(folder / CONFIG_FILE)
    may_run_code(folder)
    if "quantization_config" in config:
        method = config["quantization_config"].get("quant_method", "an unknown method")
        raise ModelLoadError(
            f"{folder / CONFIG_FILE}: the weights are already quantised ({method}).",
            advice="Register the original 16-bit model.",
        )
    return config


def read_json(path: Path) -> dict[str, Any]:
    """Raises: ModelLoadError where the file is not a JSON object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{path} is not valid JSON: {error}", advice="Download the model again.") from error
    if not isinstance(values, dict):
        raise ModelLoadError(f"{path} is not a JSON object.", advice="Download the model again.")
    return values


def check_weights(folder: Path) -> Weights:
    """Find the safetensors files and read their headers.

    Raises: ModelLoadError where a file is missing, cut short, or there are pickled weights only.
    """
    files = _weight_files(folder)
    elements: Counter[str] = Counter()
    for file in files:
        elements.update(_count_elements(file))
    if not elements:
        raise ModelLoadError(f"{folder}: the weights hold no tensor.", advice="Download the model again.")
    return Weights(files, sum(file.stat().st_size for file in files), elements.most_common(1)[0][0])


def weight_file_names(index: Path) -> tuple[str, ...]:
    """The weight files that a shard index names. Raises: ModelLoadError."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelLoadError(f"{index} has no `weight_map`.", advice="Download the model again.")
    names = sorted({str(name) for name in weight_map.values()})
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ModelLoadError(f"{index} names a file outside its folder: {outside[0]}", advice="Do not use this model.")
    return tuple(names)


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = folder / INDEX_FILE
    names = weight_file_names(index) if index.is_file() else (SINGLE_FILE,)
    missing = [name for name in names if not (folder / name).is_file()]
    if not missing:
        return tuple(folder / name for name in names)
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelLoadError(
            f"{folder} holds pickled weights ({pickles[0]}), which can run code when they are read.",
            advice="Use a copy of the model with .safetensors files.",
        )
    raise ModelLoadError(f"{folder} has no {missing[0]}.", advice="Download the model again, with every shard.")


def _count_elements(file: Path) -> Counter[str]:
    """Elements per dtype, from the header. Raises: ModelLoadError where header and file size disagree."""
    header, data_bytes = read_header(file)
    elements: Counter[str] = Counter()
    end = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            elements[tensor["dtype"]] += prod(tensor["shape"])
            end = max(end, tensor["data_offsets"][1])
    if end != data_bytes:
        raise ModelLoadError(f"{file} should hold {end} bytes of tensors and holds {data_bytes}.", advice=_AGAIN)
    return elements


_AGAIN = "The file is damaged or cut short: download it again."


def read_header(file: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and how many bytes follow it.

    Source: https://huggingface.co/docs/safetensors: 8 bytes little-endian length, then so many bytes of JSON.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        prefix = opened.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 0 < length <= min(size - 8, _MAX_HEADER_BYTES):
            raise ModelLoadError(f"{file} is not a safetensors file.", advice=_AGAIN)
        try:
            header: dict[str, Any] = json.loads(opened.read(length))
        except ValueError as error:
            raise ModelLoadError(f"{file} has a broken header: {error}", advice=_AGAIN) from error
    return header, size - 8 - length
