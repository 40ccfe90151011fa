"""What is sent of an artifact: the folder as a zip, or one of its files. No copy is made on the disk."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from app.artifacts.zips import Entry, Zip
from app.core.artifacts.models import Artifact
from app.core.artifacts.opened import FileGone, open_listed, read_listed
from app.core.artifacts.store import META, keep_files, list_meta
from app.core.database import Database
from app.core.errors import Conflict, NotFound
from app.core.jobs.models import Job
from app.core.paths import DataFolder
from app.web.ranges import Content, send

SUMS = "SHA256SUMS"
_FORMAT = 1  # raise it when the same files come to other bytes of a zip


def send_zip(request: Request, database: Database, folder: DataFolder, job: Job, artifact: Artifact) -> Response:
    """The artifact's folder as a zip. Raises: Conflict where it is not verified, or a file of it has gone."""
    _require_verified(job, artifact)
    root = folder.job(artifact.job_id) / artifact.path
    files = _summed(database, root, artifact)
    name = zip_name(job, artifact)
    content = Zip(_entries(root, files, name), artifact.created_at)
    etag = _etag(name, artifact, files)
    return send(request, Content(f"{name}.zip", content.size_bytes, etag, content.read, "application/zip"))


def send_file(request: Request, folder: DataFolder, job: Job, artifact: Artifact, path: str) -> Response:
    """One of the artifact's files. Raises: NotFound; Conflict as for the whole."""
    _require_verified(job, artifact)
    listed = next((file for file in artifact.files if file["path"] == path), None)
    if listed is None:
        raise NotFound(f"This {artifact.kind} has no file {path!r:.200}.")
    root = folder.job(artifact.job_id) / artifact.path
    _require_there(root, listed)
    name = path.rpartition("/")[2]
    return send(request, Content(name, listed["bytes"], listed["sha256"], partial(read_listed, root, listed)))


def zip_name(job: Job, artifact: Artifact) -> str:
    """Without its suffix; also the folder within."""
    step = f"-step-{artifact.step}" if artifact.kind == "checkpoint" else ""
    return f"loradeck-job-{job.id}-{artifact.kind}{step}"


def _require_verified(job: Job, artifact: Artifact) -> None:
    if artifact.verified is False:
        raise Conflict(
            f"The {artifact.kind} of job {job.id} did not pass its verification.",
            advice="Its certificate says what differs; make it again.",
        )


def _entries(root: Path, files: list[dict[str, Any]], name: str) -> list[Entry]:
    entries = [
        Entry(f"{name}/{file['path']}", file["bytes"], file["crc32"], partial(read_listed, root, file))
        for file in files
    ]
    sums = "".join(f"{file['sha256']}  {file['path']}\n" for file in files)
    named = {file["path"] for file in files}
    return entries if SUMS in named else [*entries, Entry.of_text(f"{name}/{SUMS}", sums)]


def _summed(database: Database, root: Path, artifact: Artifact) -> list[dict[str, Any]]:
    """The artifact's files, each seen to be there; a checksum that earlier versions did not keep is computed once."""
    listed = [*artifact.files]
    if all(file["path"] != META for file in listed):
        listed.append(list_meta(root))
    for file in listed:
        _require_there(root, file)
    if all("crc32" in file for file in listed) and len(listed) == len(artifact.files):
        return listed
    summed = [{**file, "crc32": file.get("crc32", _crc32(root, file))} for file in listed]
    keep_files(database, artifact.key, summed)
    return summed


def _crc32(root: Path, listed: Mapping[str, Any]) -> int:
    value = 0
    for piece in read_listed(root, listed, 0, listed["bytes"]):
        value = zlib.crc32(piece, value)
    return value


def _require_there(root: Path, listed: Mapping[str, Any]) -> None:
    try:
        with open_listed(root, listed):
            pass
    except FileGone as gone:
        raise Conflict(gone.message, advice="Restore it from a backup, or make the artifact again.") from gone


def _etag(name: str, artifact: Artifact, files: list[dict[str, Any]]) -> str:
    """Of everything that the zip's bytes follow from: names, sizes, hashes, time, and how it is laid out."""
    parts = [[file["path"], file["bytes"], file["sha256"]] for file in files]
    return hashlib.sha256(json.dumps([_FORMAT, name, artifact.created_at, parts]).encode()).hexdigest()
