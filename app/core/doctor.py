"""Checks of this installation that need no running dashboard."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pynvml
import pysqlite3.dbapi2 as sqlite
from sqlalchemy import text

from app.core.database import Database, wal_is_safe
from app.core.jobs.capabilities import describe_capabilities
from app.core.jobs.queries import find_capabilities
from app.core.paths import bundled
from app.core.settings import Settings

_LOW_DISK_BYTES = 5 * 1024**3
_TRAINING_PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. A missing GPU or training stack is said, but is no failure."""

    name: str
    ok: bool
    message: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_checks(settings: Settings) -> list[Check]:
    """Every check, in the order in which things depend on each other."""
    checks: tuple[Callable[[Settings], Check], ...] = (
        _check_sqlite,
        _check_home,
        _check_disk,
        _check_database,
        _check_assets,
        _check_training,
        _check_gpu,
        _check_capabilities,
    )
    return [check(settings) for check in checks]


def _check_sqlite(_settings: Settings) -> Check:
    journal = "WAL" if wal_is_safe(sqlite.sqlite_version_info) else "TRUNCATE (this version's WAL can corrupt data)"
    return Check("sqlite", True, f"{sqlite.sqlite_version}, journal mode {journal}")


def _check_home(settings: Settings) -> Check:
    home = settings.home
    if not home.exists():
        return Check("data folder", True, f"{home} does not exist yet; it is made at the first start")
    if not os.access(home, os.W_OK | os.X_OK):
        return Check("data folder", False, f"{home} cannot be written; change its owner or set LORADECK_HOME")
    mode = home.stat().st_mode & 0o777
    if mode & 0o077:
        return Check("data folder", False, f"{home} is open to other users (mode {mode:o}); run: chmod 700 {home}")
    return Check("data folder", True, str(home))


def _check_disk(settings: Settings) -> Check:
    folder = next(path for path in (settings.home, *settings.home.resolve().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    return Check("disk", free >= _LOW_DISK_BYTES, f"{free / 1024**3:.1f} GiB free under {folder}")


def _check_database(settings: Settings) -> Check:
    database = Database(settings.effective_database_url)
    if not database.path.exists():
        return Check("database", True, "not there yet; it is made at the first start")
    try:
        with database.engine.connect() as connection:
            answer = str(connection.execute(text("PRAGMA quick_check")).scalar_one())
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes SQLite say is the finding
        return Check("database", False, f"{database.path}: {error}; restore a backup")
    return Check("database", answer == "ok", f"{database.path}: {answer}")


def _check_assets(_settings: Settings) -> Check:
    there = (bundled("static") / "vendor").is_dir()
    return Check("front-end assets", there, "in place" if there else "missing; run `make assets`")


def _check_training(_settings: Settings) -> Check:
    versions = {name: _version(name) for name in _TRAINING_PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Check(
            "training stack", True, f"not installed here ({', '.join(missing)}): this machine cannot be a worker"
        )
    return Check("training stack", True, ", ".join(f"{name} {version}" for name, version in versions.items()))


def _check_gpu(_settings: Settings) -> Check:
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        driver = pynvml.nvmlSystemGetDriverVersion()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return Check("gpu", True, f"not available ({error}); jobs run on the CPU")
    return Check("gpu", True, f"{count} found, driver {driver}")


def _check_capabilities(settings: Settings) -> Check:
    """What the last worker found that it can run. What it cannot run is said, and is no failure."""
    database = Database(settings.effective_database_url)
    if not database.path.exists():
        return Check("capabilities", True, describe_capabilities(None))
    try:
        with database.read() as session:
            return Check("capabilities", True, describe_capabilities(find_capabilities(session)))
    except Exception as error:  # noqa: BLE001 - damaged, or of an older version; the database's own check judges it
        return Check("capabilities", True, f"not known: {error}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
