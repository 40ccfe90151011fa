"""What tells one input of a run from another: a hash of plain values, and one of a model's files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from worker.base_models.publish import files_of

_WINDOW_BYTES = 64 * 1024
_WINDOWS = 64  # of a large file, spread over all of it: 4 MiB


def identify_model(folder: Path) -> str:
    """A hash of every file's name, size and content; of a large file's content the beginning, the end and samples.

    Whatever was trained differs everywhere in its weights, so a model of the same shapes has another hash. To read all
    would take minutes with a large model; the receipt does, once a run has ended.
    """
    digest = hashlib.sha256()
    for file in files_of(folder):
        digest.update(f"{file.relative_to(folder)}\0{file.stat().st_size}\0".encode())
        _add_content(digest, file)
    return digest.hexdigest()


def hash_values(values: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _add_content(digest: hashlib._Hash, file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as content:
        if size <= _WINDOWS * _WINDOW_BYTES:
            digest.update(content.read())
            return
        for window in range(_WINDOWS):
            content.seek(window * (size - _WINDOW_BYTES) // (_WINDOWS - 1))
            digest.update(content.read(_WINDOW_BYTES))
