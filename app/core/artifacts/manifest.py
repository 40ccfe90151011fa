"""`meta.json` of a finished folder: what lies there, with sizes and hashes, and whether it is as that says."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

META = "meta.json"
_CHECKSUM = "checksum"  # in a meta.json, of everything else in it
_CHUNK_BYTES = 1 << 20


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def list_file(folder: Path, file: Path) -> dict[str, Any]:
    """{path, bytes, sha256, crc32} of a file below the folder, read once; a zip needs the last of them."""
    digest, crc32, size = hashlib.sha256(), 0, 0
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            digest.update(chunk)
            crc32, size = zlib.crc32(chunk, crc32), size + len(chunk)
    return {"path": str(file.relative_to(folder)), "bytes": size, "sha256": digest.hexdigest(), "crc32": crc32}


def seal(meta: Mapping[str, Any]) -> str:
    """The text of a meta.json, with the checksum of its content."""
    return _dump({**meta, _CHECKSUM: _checksum(meta)})


def folder_fault(folder: Path) -> str | None:
    """What is wrong with a published folder: its `meta.json`, or the first file that is not as that says; else None."""
    try:
        text = (folder / META).read_text(encoding="utf-8")
        meta = json.loads(text)
        if meta[_CHECKSUM] != _checksum(meta) or text != _dump(meta):
            return f"{META} is damaged: its checksum is not that of its content"
        return next((fault for file in meta["files"] if (fault := file_fault(folder, file))), None)
    except KeyError as missing:
        return f"{META} is incomplete: it has no {missing}"
    except FileNotFoundError:
        return f"it is not complete: {META} is missing"
    except (OSError, ValueError, TypeError) as error:
        return f"{META} cannot be read: {error}"


def file_fault(folder: Path, listed: Mapping[str, Any], *, hashes: bool = True) -> str | None:
    """What is wrong with a file that is listed as {path, bytes, sha256}; without `hashes`, by its size alone."""
    path, size = listed["path"], listed["bytes"]
    file = folder / path
    if not file.is_file():
        return f"{path} is missing"
    if file.stat().st_size != size:
        return f"{path} has {file.stat().st_size} bytes instead of {size}"
    if not hashes or hash_file(file) == listed["sha256"]:
        return None
    return f"{path} is damaged: its SHA-256 is not that of {META}"


def _dump(meta: Mapping[str, Any]) -> str:
    return json.dumps(meta, indent=2, ensure_ascii=False)


def _checksum(meta: Mapping[str, Any]) -> str:
    """SHA-256 over a meta.json's values, its own checksum left out."""
    content = {name: value for name, value in meta.items() if name != _CHECKSUM}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def kept_mark(folder: Path) -> Path:
    """The file beside a checkpoint that says: it stays. See `app.core.artifacts.keeping`."""
    return folder.with_name(f"{folder.name}.kept")
