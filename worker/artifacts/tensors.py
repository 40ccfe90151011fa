"""Safetensors files read in pieces: a tensor, or some of its rows, at a time; nothing is mapped or held.

Source: https://huggingface.co/docs/safetensors: 8 bytes little-endian length, so many bytes of JSON, then the tensors.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from worker.base_models.checks import read_header

DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file; `offset` is where its bytes begin, counted from the file's begin."""

    file: Path
    dtype_name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def dtype(self) -> torch.dtype | None:
        """None for a type that is not read here, such as eight-bit floats."""
        return DTYPES.get(self.dtype_name)

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Of a type that is read here."""
        return self.elements * DTYPES[self.dtype_name].itemsize


def list_tensors(file: Path) -> dict[str, Stored]:
    """Every tensor of a file, in the order in which they lie there. Raises: ModelLoadError."""
    header, data_bytes = read_header(file)
    data_begin = file.stat().st_size - data_bytes
    found = {
        name: Stored(file, entry["dtype"], tuple(entry["shape"]), data_begin + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }
    return dict(sorted(found.items(), key=lambda item: item[1].offset))


def read_tensor(stored: Stored) -> torch.Tensor:
    """All of it, in fp32."""
    if stored.dtype is None:
        raise ValueError(f"tensors of type {stored.dtype_name} cannot be read")
    raw = torch.empty(stored.elements * stored.dtype.itemsize, dtype=torch.uint8)
    descriptor = os.open(stored.file, os.O_RDONLY)
    try:
        read_into(descriptor, stored.offset, raw)
    finally:
        os.close(descriptor)
    return raw.view(stored.dtype).reshape(stored.shape).float()


def read_into(descriptor: int, offset: int, raw: torch.Tensor) -> None:
    """Fill the bytes `raw` from the file's `offset` on. Raises: OSError where the file ends before."""
    into, done = raw.numpy().data, 0
    while done < len(into):
        count = os.preadv(descriptor, [into[done:]], offset + done)
        if count == 0:
            raise OSError(f"the file ends {len(into) - done} bytes before its tensor does")
        done += count
