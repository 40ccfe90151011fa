"""`meta.json` of a finished folder: what lies there, with sizes and hashes, and whether it is as that says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

META = "meta.json"
_CHUNK_BYTES = 1 << 20


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def folder_fault(folder: Path, *, hashes: bool = True) -> str | None:
    """What is wrong with a published folder: its `meta.json`, or the first file that is not as that says; else None.

    Without `hashes` only sizes are compared.
    """
    try:
        files = json.loads((folder / META).read_bytes())["files"]
        return next((fault for file in files if (fault := _file_fault(folder, file, hashes))), None)
    except FileNotFoundError:
        return f"it is not complete: {META} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{META} cannot be read: {error}"


def _file_fault(folder: Path, listed: dict[str, Any], hashes: bool) -> str | None:
    path, size, sha256 = listed["path"], listed["bytes"], listed["sha256"]
    file = folder / path
    if not file.is_file():
        return f"{path} is missing"
    if file.stat().st_size != size:
        return f"{path} has {file.stat().st_size} bytes instead of {size}"
    if not hashes or hash_file(file) == sha256:
        return None
    return f"{path} is damaged: its SHA-256 is not that of {META}"
