"""Artifact folders: complete or absent, each with a `meta.json` that lists its files with sizes and hashes."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from app.core.errors import JobError
from worker.base_models.publish import files_of, hash_file, publish_folder

logger = logging.getLogger(__name__)

META = "meta.json"
STATE = "state"  # below a job's folder: what a run that was interrupted goes on from
_STEP = re.compile(r"step-(\d+)")
_SPARE_BYTES = 64 * 1024**2  # left free for the database and the logs
_PACKAGES = ("torch", "transformers", "peft", "safetensors")


class DiskFull(JobError):
    """There is not enough free disk space."""

    code: ClassVar[str] = "disk_full"


@contextmanager
def publish_artifact(target: Path, meta: Mapping[str, Any], needed_bytes: int) -> Iterator[Path]:
    """Yield a folder to fill; it becomes `target` with its `meta.json` if the block ends well, else nothing stays.

    Raises: DiskFull before anything is written where `needed_bytes` do not fit.
    """
    check_free_space(target, needed_bytes)
    with publish_folder(target) as folder:
        yield folder
        _write_meta(folder, meta)


def check_free_space(target: Path, needed_bytes: int) -> None:
    """Raises: DiskFull."""
    place = next(parent for parent in target.parents if parent.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed_bytes + _SPARE_BYTES:
        raise DiskFull(
            f"{target.name} needs {_mib(needed_bytes + _SPARE_BYTES)} of free disk space; {place} has {_mib(free)}.",
            advice="Delete old jobs or models, or move LORADECK_HOME to a larger disk, then run the job again.",
        )


def current_versions() -> dict[str, str]:
    """Of the packages that a `meta.json` names."""
    return {package: version(package) for package in _PACKAGES}


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(file.stat().st_size for file in files_of(folder))


def folder_fault(folder: Path) -> str | None:
    """What is wrong with a published folder: its `meta.json`, or the first file that is not as that says; else None."""
    try:
        files = json.loads((folder / META).read_bytes())["files"]
        return next((fault for file in files if (fault := _file_fault(folder, **file))), None)
    except FileNotFoundError:
        return f"it is not complete: {META} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{META} cannot be read: {error}"


def _file_fault(folder: Path, path: str, bytes: int, sha256: str) -> str | None:
    file = folder / path
    if not file.is_file():
        return f"{path} is missing"
    if file.stat().st_size != bytes:
        return f"{path} has {file.stat().st_size} bytes instead of {bytes}"
    return None if hash_file(file) == sha256 else f"{path} is damaged: its SHA-256 is not that of {META}"


def step_folders(parent: Path) -> list[tuple[int, Path]]:
    """The folders `step-N` below `parent` with their N, ascending."""
    found = ((match, path) for path in parent.glob("step-*") if (match := _STEP.fullmatch(path.name)))
    return sorted((int(match[1]), path) for match, path in found)


def drop_steps_after(parent: Path, step: int) -> None:
    """Remove the folders of later steps, and what a process that was killed left half-written."""
    for leftover in parent.glob(".step-*"):
        shutil.rmtree(leftover)
    for number, folder in step_folders(parent):
        if number > step:
            _remove(folder)


def drop_old_steps(parent: Path, keep: int, best_step: int | None) -> None:
    """Remove all but the newest `keep` and the best of the folders `step-N`, once the newest is seen to be whole."""
    folders = step_folders(parent)
    fault = folder_fault(folders[-1][1]) if folders else None
    if fault:
        logger.warning("%s: older ones are kept, since %s", folders[-1][1], fault)
        return
    for number, folder in folders[:-keep]:
        if number != best_step:
            _remove(folder)


def _remove(folder: Path) -> None:
    condemned = folder.with_name(f".{folder.name}.removed")  # half a folder must not look like a whole one
    shutil.rmtree(condemned, ignore_errors=True)
    folder.rename(condemned)
    shutil.rmtree(condemned)


def _write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Written last: its presence says that everything else is there."""
    files = [
        {"path": str(file.relative_to(folder)), "bytes": file.stat().st_size, "sha256": hash_file(file)}
        for file in files_of(folder)
    ]
    content = {**meta, "created_at": time.time(), "versions": current_versions(), "files": files}
    with (folder / META).open("w", encoding="utf-8") as out:
        json.dump(content, out, indent=2, ensure_ascii=False)
        out.flush()
        os.fsync(out.fileno())


def _mib(count: int) -> str:
    return f"{count / 1024**2:,.0f} MiB"
