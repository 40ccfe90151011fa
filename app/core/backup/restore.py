"""Put a backup back: everything is verified beside the data folder's content before any of that is touched."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pysqlite3.dbapi2 as sqlite

from app.core.artifacts.manifest import hash_file
from app.core.backup.archive import DATABASE, FORMAT, MANIFEST
from app.core.backup.reconcile import reconcile
from app.core.backup.snapshot import copy_database, count_rows, find_fault, read_revision
from app.core.database import Database, known_revisions
from app.core.errors import Conflict, DatabaseTooNew, InvalidInput, RestoreFailed
from app.core.locks import hold_alone
from app.core.paths import DataFolder, fsync_folder, write_private

_CHUNK_BYTES = 1 << 20
_ROOTS = ("jobs", "datasets")


@dataclass(slots=True)
class Staged:
    """A verified backup, unpacked: the database, and files by their place in the data folder."""

    database: Path
    files: dict[str, Path] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)


def restore_backup(database: Database, folder: DataFolder, source: Path, *, force: bool = False) -> dict[str, Any]:
    """Restore a file of `loradeck backup`, or a bare copy of the database as an upgrade leaves it.

    Raises: InvalidInput, Conflict (it is in use, or not empty), RestoreFailed, DatabaseTooNew; nothing is changed then.
    """
    if not source.is_file():
        raise InvalidInput(f"There is no file {source}.", field="FILE")
    folder.create()
    with hold_alone(folder):
        _refuse_content(database, folder, force)
        staging = folder.home / ".restore"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        try:
            staged = _unpack(source, staging)
            _verify_database(staged.database)
            absent = reconcile(staged.database, database.path, folder, staged.files)
            aside = _put_in_place(database.path, folder, staged, source)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return {
        "path": str(source),
        "created_at": staged.manifest.get("created_at"),
        "rows": count_rows(database.path),
        "files": len(staged.files),
        "absent": absent,
        "set_aside": str(aside) if aside else None,
    }


def _refuse_content(database: Database, folder: DataFolder, force: bool) -> None:
    if force or not (database.path.exists() or folder.numbered()):
        return
    raise Conflict(
        f"{folder.home} is not empty.",
        advice="Set LORADECK_HOME to an empty folder; or use --force: the database is replaced, files of the backup "
        "take their places, other files stay, and what is replaced is kept in set-aside/.",
    )


def _unpack(source: Path, staging: Path) -> Staged:
    """Raises: RestoreFailed with the first thing that is not as it should be."""
    if not zipfile.is_zipfile(source):
        return Staged(_take_bare_copy(source, staging))
    try:
        with zipfile.ZipFile(source) as bundle:
            manifest = json.loads(bundle.read(MANIFEST))
            if manifest["format"] != FORMAT:
                raise RestoreFailed(f"{source} is of format {manifest['format']}; this version reads {FORMAT}.")
            database = staging / DATABASE
            _extract(bundle, manifest["database"], database)
            files = {file["path"]: _extract_file(bundle, file, staging) for file in manifest["files"]}
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError) as error:
        raise RestoreFailed(f"{source} is no whole backup of Loradeck: {error}", advice="Take another one.") from error
    return Staged(database, files, manifest)


def _take_bare_copy(source: Path, staging: Path) -> Path:
    with source.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            raise RestoreFailed(f"{source} is neither a backup nor a database.", advice="Take another file.")
    database = staging / DATABASE
    try:
        copy_database(source, database)
    except sqlite.DatabaseError as error:
        raise RestoreFailed(f"{source} is damaged: {error}", advice="Take another one.") from error
    return database


def _extract_file(bundle: zipfile.ZipFile, file: dict[str, Any], staging: Path) -> Path:
    """Raises: ValueError where its name leads anywhere but below jobs/ or datasets/."""
    path = PurePosixPath(file["path"])
    if path.is_absolute() or ".." in path.parts or path.parts[0] not in _ROOTS or "\\" in file["path"]:
        raise ValueError(f"{file['path']!r} is no path of a data folder")
    target = staging / "files" / path
    _extract(bundle, file, target)
    return target


def _extract(bundle: zipfile.ZipFile, file: dict[str, Any], target: Path) -> None:
    """Raises: ValueError where it is not as the manifest says, KeyError where it is not there."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if bundle.getinfo(file["path"]).file_size != file["bytes"]:
        raise ValueError(f"{file['path']} has another size than its manifest says")
    with bundle.open(file["path"]) as packed, open(target, "xb", opener=_open_private) as out:
        shutil.copyfileobj(packed, out, _CHUNK_BYTES)
        out.flush()
        os.fsync(out.fileno())
    if hash_file(target) != file["sha256"]:
        raise ValueError(f"{file['path']} is damaged: its SHA-256 is not that of its manifest")


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _verify_database(path: Path) -> None:
    """Raises: RestoreFailed, DatabaseTooNew."""
    fault = find_fault(path)
    if fault is not None:
        raise RestoreFailed(f"The backup's database is damaged: {fault}", advice="Take another backup.")
    revision, known = read_revision(path), known_revisions()
    if revision is None:
        raise RestoreFailed("The file holds a database, but none of Loradeck.", advice="Take another file.")
    if revision not in known:
        raise DatabaseTooNew(
            f"The backup has schema {revision}; this version knows {known[-1]}.",
            advice="Restore it by the newer version.",
        )


def _put_in_place(path: Path, folder: DataFolder, staged: Staged, source: Path) -> Path | None:
    """Files first, the database last. While the marker is there nothing starts, so half of it is never worked on."""
    moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = folder.home / "set-aside" / f"{moment}-{secrets.token_hex(2)}"
    ready = path.with_name(f".{path.name}.restored")
    shutil.copyfile(staged.database, ready)  # beside its place, which may be on another disk
    ready.chmod(0o600)
    _sync(ready)
    write_private(folder.restoring, json.dumps({"from": str(source), "began_at": time.time()}) + "\n")
    fsync_folder(folder.home)
    moved = [_place(folder.home / name, file, aside / name) for name, file in staged.files.items()]
    for old in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        moved.append(_move_aside(old, aside / old.name))
    ready.rename(path)
    fsync_folder(path.parent)
    folder.restoring.unlink()
    fsync_folder(folder.home)
    return aside if any(moved) else None


def _place(target: Path, file: Path, aside: Path) -> bool:
    """Returns whether something else lay there, and is set aside."""
    if target.is_file() and hash_file(target) == hash_file(file):
        return False
    moved = _move_aside(target, aside)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.move(file, target)
    fsync_folder(target.parent)
    return moved


def _move_aside(path: Path, aside: Path) -> bool:
    if not os.path.lexists(path):
        return False
    aside.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.move(path, aside)
    return True


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
