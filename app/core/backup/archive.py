"""Make a backup: one zip of the database's copy, files that it names, and a manifest with every hash."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import pysqlite3.dbapi2 as sqlite

from app import __version__
from app.core.artifacts.manifest import hash_file
from app.core.backup.contents import Named, list_left_out, list_named
from app.core.backup.offer import offer_restore
from app.core.backup.snapshot import copy_database, count_rows, find_fault, read_revision
from app.core.database import Database
from app.core.errors import BackupFailed, Conflict, DatabaseDamaged, InvalidInput
from app.core.paths import DataFolder, fsync_folder

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "loradeck.db"
_CHUNK_BYTES = 1 << 20
_DENSE = frozenset({".safetensors", ".pt", ".pth", ".gguf", ".parquet", ".gz", ".zst"})  # deflating gains nothing


@dataclass(slots=True)
class Manifest:
    """What a backup holds, and what it does not."""

    created_at: float
    schema: str
    database: dict[str, Any]  # {bytes, sha256, rows: {table: count}}
    files: list[dict[str, Any]] = field(default_factory=list)  # [{path, bytes, sha256}]
    missing: list[str] = field(default_factory=list)  # named by the database, but not in the data folder
    changed: list[str] = field(default_factory=list)  # held as they are, which is not as the database says
    left_out: list[dict[str, Any]] = field(default_factory=list)  # [{what, count, bytes}]
    with_files: bool = False
    format: int = FORMAT
    version: str = __version__

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def write_backup(
    database: Database, folder: DataFolder, target: Path, *, with_files: bool = False, force: bool = False
) -> dict[str, Any]:
    """Back up a data folder that may be in use; `target` appears whole or not at all.

    Raises: InvalidInput, Conflict, DatabaseDamaged, BackupFailed.
    """
    if not database.path.is_file():
        raise BackupFailed(f"There is no database at {database.path}.", advice="Is LORADECK_HOME the right folder?")
    _refuse_target(target, force)
    with _partial(target) as (archive, copy):
        manifest = _copy(database.path, copy)
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bundle:
            manifest.database |= _add(bundle, DATABASE, copy)
            _add_files(bundle, manifest, copy, folder, with_files)
            bundle.writestr(MANIFEST, json.dumps(manifest.to_json(), indent=1, ensure_ascii=False))
        archive.flush()
        os.fsync(archive.fileno())
        _refuse_target(target, force)
        Path(archive.name).rename(target)
    fsync_folder(target.parent)
    return {"path": str(target), "bytes": target.stat().st_size, "sha256": hash_file(target), **_summary(manifest)}


def _summary(manifest: Manifest) -> dict[str, Any]:
    """The manifest with its files counted instead of listed."""
    files = {"count": len(manifest.files), "bytes": sum(file["bytes"] for file in manifest.files)}
    return {**manifest.to_json(), "files": files}


def _refuse_target(target: Path, force: bool) -> None:
    if not target.parent.is_dir():
        raise InvalidInput(f"The folder {target.parent} does not exist.", field="FILE")
    if target.is_dir():
        raise InvalidInput(f"{target} is a folder; name a file in it.", field="FILE")
    if target.exists() and not force:
        raise Conflict(f"{target} exists.", advice="Choose another name, or replace it with --force.", field="FILE")


@contextmanager
def _partial(target: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """The archive under another name, open for writing, and where the copy goes; removed if the block fails."""
    path, copy = (target.with_name(f".{target.name}.{part}") for part in ("partial", "partial.db"))
    with open(path, "r+b", opener=_create_private) as archive:
        try:
            fcntl.flock(archive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"Another backup to {target} is under way.", advice="Wait for it to end.") from None
        archive.truncate()  # left by one that was killed
        copy.unlink(missing_ok=True)
        try:
            yield archive, copy
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            copy.unlink(missing_ok=True)


def _create_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _copy(source: Path, copy: Path) -> Manifest:
    """Raises: DatabaseDamaged, BackupFailed."""
    _check_space(source, copy)
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    created_at = time.time()
    try:
        copy_database(source, copy)
        fault = find_fault(copy)
    except sqlite.OperationalError as error:
        raise BackupFailed(f"{source} could not be copied: {error}") from error
    except sqlite.DatabaseError as error:
        fault = str(error)
    if fault is not None:
        raise DatabaseDamaged(f"{source} is damaged, so nothing was backed up: {fault}", advice=offer_restore(source))
    revision = read_revision(copy)
    if revision is None:
        raise BackupFailed(f"{source} is no database of Loradeck.", advice="Is LORADECK_HOME the right folder?")
    return Manifest(created_at, revision, {"rows": count_rows(copy)})


def _check_space(source: Path, copy: Path) -> None:
    """Room for the copy and for the archive, which is smaller."""
    needed, free = 2 * source.stat().st_size, shutil.disk_usage(copy.parent).free
    if free < needed:
        raise BackupFailed(
            f"{copy.parent} has {free / 1024**2:,.0f} MiB free; the copy takes up to {needed / 1024**2:,.0f} MiB.",
            advice="Free disk space, or choose a file on another disk.",
        )


def _add_files(bundle: zipfile.ZipFile, manifest: Manifest, copy: Path, folder: DataFolder, with_files: bool) -> None:
    """As the copy names them, so that both are of one moment; what has gone since is said."""
    named_by = Database(f"sqlite:///{copy}")
    try:
        with named_by.read() as session:
            named = list(list_named(session, folder, with_files=with_files))
            manifest.left_out = list_left_out(session, with_files=with_files)
    finally:
        named_by.engine.dispose()
    manifest.with_files = with_files
    for each in named:
        _add_named(bundle, manifest, folder, each)


def _add_named(bundle: zipfile.ZipFile, manifest: Manifest, folder: DataFolder, named: Named) -> None:
    try:
        added = _add(bundle, named.path, folder.home / named.path)
    except FileNotFoundError:
        if named.required:
            manifest.missing.append(named.path)
        return
    manifest.files.append(added)
    if named.sha256 not in (None, added["sha256"]):
        manifest.changed.append(named.path)


def _add(bundle: zipfile.ZipFile, name: str, source: Path) -> dict[str, Any]:
    """Put a file into the archive as it is now. Raises: FileNotFoundError, for a link too."""
    if source.is_symlink():
        raise FileNotFoundError(errno.ENOENT, "a link, not a file", str(source))
    entry = zipfile.ZipInfo(name) if source.suffix in _DENSE else name  # a ZipInfo is stored, a name deflated
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as file, bundle.open(entry, "w", force_zip64=True) as out:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            out.write(chunk)
    return {"path": name, "bytes": size, "sha256": digest.hexdigest()}
