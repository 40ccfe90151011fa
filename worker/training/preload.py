"""The base model and tokenizer that a spare child holds before it has a job: most jobs train the model of the last one.

Only what is small, only on a machine without a GPU (there the transfer decides), and only as long as the files are the
ones that were read.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from app.core.errors import ModelLoadError
from worker.training.model import Hardware, load_base_model
from worker.training.quantization import Quantization
from worker.training.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)

MAX_WEIGHTS_BYTES = 10**9  # on disk
_ROOM = 8  # times the weights' bytes must be free: in fp32 they may take twice those, and a job needs room beside them

Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Preloaded:
    """What was loaded from a folder when its files had this stamp."""

    folder: Path
    stamp: Stamp
    hardware: Hardware
    tokenizer: Any
    model: Any


_held: list[Preloaded] = []  # one, or none


def preload(folder: Path) -> None:
    """Load and hold the model of the folder, if it is small and no GPU is there."""
    if torch.cuda.is_available() or not _is_small(folder):
        return
    stamp, hardware = _stamp(folder), Hardware(torch.device("cpu"), torch.float32)
    try:
        loaded = Preloaded(folder, stamp, hardware, load_tokenizer(folder), load_base_model(folder, hardware))
    except ModelLoadError as error:  # a job on this model will say it where it is seen
        logger.warning("the model is not loaded ahead of a job: %s", error)
        return
    _read_pages(loaded.model)
    _held[:] = [loaded]


def tokenizer_of(folder: str | Path) -> Any:
    """The tokenizer held for this folder, else loaded now. Raises: ModelLoadError."""
    if not _is_held(folder):
        release()
        return load_tokenizer(folder)
    return _held[0].tokenizer


def base_model_of(folder: str | Path, hardware: Hardware, quantization: Quantization | None = None) -> Any:
    """The base model held for this folder, else loaded now. It is handed out once. Raises: ModelLoadError."""
    held = _held.pop() if _is_held(folder) else None
    release()
    if held is None or quantization is not None or held.hardware != hardware:
        return load_base_model(folder, hardware, quantization)
    logger.info("the base model had been loaded ahead of the job")
    return held.model


def release() -> None:
    """Hold nothing any longer: a job that has no use for it wants the memory."""
    _held.clear()


def _is_held(folder: str | Path) -> bool:
    return any(held.folder == Path(folder) and held.stamp == _stamp(held.folder) for held in _held)


def _is_small(folder: Path) -> bool:
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return 0 < weights <= MAX_WEIGHTS_BYTES and psutil.virtual_memory().available >= _ROOM * weights


def _stamp(folder: Path) -> Stamp:
    """Names, sizes and times of change of its files; nothing for a folder that is not there."""
    found = sorted(file for file in folder.glob("*") if file.is_file())
    return tuple((file.name, stat.st_size, stat.st_mtime_ns) for file in found for stat in [file.stat()])


@torch.no_grad()
def _read_pages(model: Any) -> None:
    """Weights are mapped from their file: each page is read now, not in a job's first step."""
    for parameter in model.parameters():
        parameter.sum()
