"""Checks of what lies in the data folder: secrets, finished folders, states to go on from, leftovers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from app.core.artifacts.manifest import file_fault, folder_fault
from app.core.artifacts.models import Artifact
from app.core.datasets.models import Dataset
from app.core.jobs.models import Job
from app.core.models.models import BaseModel
from app.core.paths import DataFolder

_SECRETS = ("api_token", "server.json", "loradeck.db", "loradeck.db-wal", "loradeck.db-shm")
_SHOWN = 5
_STALE_SECONDS = 3600.0  # what has not been written to for so long is not being written
_UNFINISHED = ("partial", "old", "removed")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. A missing GPU or training stack is said, but is no failure."""

    name: str
    ok: bool
    message: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_secrets(folder: DataFolder) -> Check:
    """Whether others can read what only the owner may."""
    stored = folder.secrets.iterdir() if folder.secrets.is_dir() else ()
    there = [*(folder.home / name for name in _SECRETS), *stored]
    open_ = [path for path in there if path.is_file() and path.stat().st_mode & 0o077]
    if open_:
        paths = " ".join(map(str, open_))
        return Check("secrets", False, f"open to other users: {paths}; run: chmod 600 {paths}")
    return Check("secrets", True, "tokens and database are readable by their owner only")


def check_artifacts(session: Session, folder: DataFolder, *, hashes: bool) -> Check:
    """Whether what jobs produced is as the database says."""
    artifacts = session.exec(select(Artifact).order_by(col(Artifact.id))).all()
    faults = []
    for artifact in artifacts:
        place = folder.job(artifact.job_id) / artifact.path
        fault = next((f for file in artifact.files if (f := file_fault(place, file, hashes=hashes))), None)
        if fault is not None:
            faults.append(f"{place}: {fault}")
    if faults:
        advice = "restore them from a backup that was made --with-files, or run their jobs again"
        return Check("artifacts", False, f"{_join(faults)}; {advice}")
    return Check("artifacts", True, f"{len(artifacts)} are whole" + ("" if hashes else " by their sizes"))


def check_states(folder: DataFolder) -> Check:
    """Whether what interrupted runs go on from verifies by its manifest."""
    states = sorted((folder.home / "jobs").glob("[0-9]*/state/step-*"))
    faults = [f"{state}: {fault}" for state in states if (fault := folder_fault(state))]
    if faults:
        advice = "a run goes on from its newest state that verifies; these are passed over and can be removed"
        return Check("checkpoints", False, f"{_join(faults)}; {advice}")
    return Check("checkpoints", True, f"{len(states)} states to go on from, all as their manifests say")


def check_leftovers(session: Session, folder: DataFolder) -> Check:
    """What takes up space and is of no use to Loradeck. No failure: nothing depends on it."""
    found = [*_unfinished(folder), *_unnamed(session, folder)]
    aside = folder.home / "set-aside"
    found += [aside] if aside.is_dir() else []
    if not found:
        return Check("leftovers", True, "none")
    size = sum(map(_size, found))
    return Check(
        "leftovers",
        True,
        f"{size / 1024**2:,.1f} MiB in {_join(map(str, found))}; look at them, and remove what you do not need while "
        "neither dashboard nor worker runs",
    )


def _unfinished(folder: DataFolder) -> Iterator[Path]:
    """Folders that a process was killed over, and uploads that were never registered."""
    home = folder.home
    patterns = [f"{place}/.*.{state}" for place in ("*", "jobs/*", "jobs/*/*") for state in _UNFINISHED]
    candidates = (path for pattern in (*patterns, "uploads/*", ".restore") for path in home.glob(pattern))
    yield from (path for path in sorted(candidates) if time.time() - _last_written(path) > _STALE_SECONDS)


def _unnamed(session: Session, folder: DataFolder) -> Iterator[Path]:
    """Folders of jobs, datasets and models that the database does not know."""
    known = {
        name: set(session.exec(select(column)).all())
        for name, column in (("jobs", Job.id), ("datasets", Dataset.id), ("models", BaseModel.id))
    }
    yield from (path for path in folder.numbered() if int(path.name) not in known[path.parent.name])


def _last_written(path: Path) -> float:
    inside = path.rglob("*") if path.is_dir() else ()
    return max(float(each.lstat().st_mtime) for each in (path, *inside))


def _size(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() else (path,)
    return sum(each.lstat().st_size for each in inside if not each.is_dir())


def _join(findings: Iterable[str]) -> str:
    findings = list(findings)
    more = f", and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
    return ", ".join(findings[:_SHOWN]) + more
