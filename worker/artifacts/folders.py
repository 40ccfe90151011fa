"""Artifact folders: complete or absent, each with a `meta.json` that lists its files with sizes and hashes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from app.core.artifacts.manifest import META as META
from app.core.artifacts.manifest import folder_fault as folder_fault
from app.core.artifacts.manifest import list_file, seal
from worker.artifacts.disk import check_free_space, telling_full_disk
from worker.base_models.publish import files_of, publish_folder, sync_folder

STATE = "state"  # below a job's folder: what a run that was interrupted goes on from
_PACKAGES = ("torch", "transformers", "peft", "safetensors")


@contextmanager
def publish_artifact(target: Path, meta: Mapping[str, Any], needed_bytes: int) -> Iterator[Path]:
    """Yield a folder to fill; it becomes `target` with its `meta.json` if the block ends well, else nothing stays.

    `meta` may get the list `files` of those that were read when they were whole: they are not read again.
    Raises: DiskFull, before anything is written where `needed_bytes` do not fit.
    """
    check_free_space(target, needed_bytes)
    with publish_folder(target) as folder, telling_full_disk(target, needed_bytes):
        yield folder
        sync_folder(folder)
        _write_meta(folder, meta)


def current_versions() -> dict[str, str]:
    """Of the packages that a `meta.json` names."""
    return {package: version(package) for package in _PACKAGES}


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(file.stat().st_size for file in files_of(folder))


def _write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Written last, once the files are on the disk: its presence says that everything else is there."""
    known = {listed["path"]: listed for listed in meta.get("files", ())}
    files = [known.get(str(file.relative_to(folder))) or list_file(folder, file) for file in files_of(folder)]
    content = {**meta, "created_at": time.time(), "versions": current_versions(), "files": files}
    with (folder / META).open("w", encoding="utf-8") as out:
        out.write(seal(content))
        out.flush()
        os.fsync(out.fileno())
