"""Folders `step-N` of one job: which there are, which go, and what a process that was killed left of them."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from app.core.artifacts.manifest import kept_mark
from worker.artifacts.folders import STATE, folder_fault
from worker.base_models.publish import collect_leftovers

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"  # below a job's folder
_STEP = re.compile(r"step-(\d+)")


def step_folders(parent: Path) -> list[tuple[int, Path]]:
    """The folders `step-N` below `parent` with their N, ascending."""
    found = ((match, path) for path in parent.glob("step-*") if (match := _STEP.fullmatch(path.name)))
    return sorted((int(match[1]), path) for match, path in found)


def collect_halves(job_folder: Path) -> None:
    """Remove what a process that was killed left half-written or half-removed; no process may be at work on the job."""
    for parent in (job_folder, job_folder / CHECKPOINTS, job_folder / STATE):
        collect_leftovers(parent)


def drop_steps_after(parent: Path, step: int) -> None:
    """Remove the folders of later steps, but not what somebody keeps."""
    for number, folder in step_folders(parent):
        if number > step:
            _remove(folder)


def drop_old_steps(parent: Path, keep: int, best_step: int | None) -> None:
    """Remove all but the newest `keep` and the best of the folders `step-N`, once the newest is seen to be whole.

    What somebody keeps stays, and takes no other's place.
    """
    folders = [found for found in step_folders(parent) if not kept_mark(found[1]).exists()]
    fault = folder_fault(folders[-1][1]) if folders else None
    if fault:
        logger.warning("%s: older ones are kept, since %s", folders[-1][1], fault)
        return
    for number, folder in folders[:-keep]:
        if number != best_step:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Unless somebody keeps it, be it in this very moment."""
    mark = kept_mark(folder)
    if mark.exists():
        return
    condemned = folder.with_name(f".{folder.name}.removed")  # half a folder must not look like a whole one
    shutil.rmtree(condemned, ignore_errors=True)
    folder.rename(condemned)
    if mark.exists():
        condemned.rename(folder)
    else:
        shutil.rmtree(condemned)
