"""What a training was queued on: kept with the job, and compared with what is there before anything is loaded.

Rows and spec are known by their SHA-256. Reading a model's weights would hold up the queue for seconds to minutes, so a
large file is known by its size and time of change: whoever writes into it changes the latter, though not the former.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.core.jobs.spec import parse_spec
from app.core.paths import DataFolder, write_private

if TYPE_CHECKING:  # a child compares, and needs no database
    from app.core.datasets.models import Dataset
    from app.core.jobs.models import Job
    from app.core.models.models import BaseModel

SPEC = "spec.yaml"  # in a job's folder
_HASHED_BYTES = 1024**2  # a model's files up to this size are hashed
_DECIDING = (".jinja", ".json", ".model", ".safetensors", "merges.txt", "vocab.txt")  # what a model is loaded from
_OURS = "meta.json"


def record_inputs(model: BaseModel, dataset: Dataset) -> dict[str, Any]:
    """What is known of them now: {dataset_sha256, model_files}, each None while it is still being imported."""
    return {
        "dataset_sha256": dataset.rows_sha256 or None,
        "model_files": describe_files(Path(model.path)) if model.path else None,
    }


def keep_spec(folder: DataFolder, job: Job) -> Job:
    """Write the job's spec.yaml, and keep its hash with the job."""
    text = parse_spec(job.spec).to_yaml()
    path = folder.job(job.key) / SPEC
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, text)
    job.inputs = {**(job.inputs or {}), "spec_sha256": hashlib.sha256(text.encode()).hexdigest()}
    return job


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """{name: {bytes, mtime_ns, sha256?}} of the files that a model is loaded from; the hash of small ones alone."""
    return {file.name: _describe(file) for file in _deciding_files(folder)}


def find_changes(folder: Path, then: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What of a model's files is not as `describe_files` found it, one by one."""
    now = {file.name: file for file in _deciding_files(folder)}
    for name, known in then.items():
        if name not in now:
            yield f"{name} is gone"
        elif change := _change(now[name], known):
            yield f"{name} {change}"
    yield from (f"{name} is new" for name in now if name not in then)


def _deciding_files(folder: Path) -> list[Path]:
    found = (file for file in folder.glob("*") if file.name.endswith(_DECIDING) and file.name != _OURS)
    return sorted(file for file in found if file.is_file())


def _describe(file: Path) -> dict[str, Any]:
    stat = file.stat()
    known: dict[str, Any] = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    return {**known, "sha256": hash_content(file)} if stat.st_size <= _HASHED_BYTES else known


def _change(file: Path, known: Mapping[str, Any]) -> str | None:
    stat = file.stat()
    if stat.st_size != known["bytes"]:
        return f"has {stat.st_size:,} bytes instead of {known['bytes']:,}"
    if stat.st_mtime_ns == known["mtime_ns"]:
        return None
    if "sha256" not in known:
        return "has been written to"
    return None if hash_content(file) == known["sha256"] else "has another content"


def hash_content(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
