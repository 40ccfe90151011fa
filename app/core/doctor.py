"""Checks of this installation that need no running dashboard."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable

import pynvml
import pysqlite3.dbapi2 as sqlite
from sqlalchemy.exc import OperationalError

from app.core.damage import refuse_damage
from app.core.database import Database, wal_is_safe
from app.core.disk import LOW_DISK_BYTES
from app.core.doctor_files import Check, check_artifacts, check_leftovers, check_secrets, check_states
from app.core.errors import DatabaseDamaged
from app.core.jobs.capabilities import describe_capabilities
from app.core.jobs.queries import find_capabilities
from app.core.paths import DataFolder, bundled
from app.core.settings import Settings

_TRAINING_PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors")


def run_checks(settings: Settings, *, hashes: bool = True) -> list[Check]:
    """Every check, in the order in which things depend on each other. Without `hashes` files are judged by size."""
    before: tuple[Callable[[Settings], Check], ...] = (_check_sqlite, _check_home, _check_disk)
    after: tuple[Callable[[Settings], Check], ...] = (_check_assets, _check_training, _check_gpu, _check_capabilities)
    database = _check_database(settings)
    files = _check_files(settings, hashes) if database.ok and DataFolder(settings.home).home.is_dir() else []
    return [*(check(settings) for check in before), database, *files, *(check(settings) for check in after)]


def _check_files(settings: Settings, hashes: bool) -> list[Check]:
    """What lies in the data folder, beside a database that can be believed."""
    folder, database = DataFolder(settings.home), Database(settings.effective_database_url)
    checks = [check_secrets(folder), check_states(folder)]
    if not database.path.exists():
        return checks
    try:
        with database.read() as session:
            return [*checks, check_artifacts(session, folder, hashes=hashes), check_leftovers(session, folder)]
    except OperationalError as error:  # of an older version, until it is started once
        return [*checks, Check("artifacts", True, f"not looked at: {error.orig}")]
    finally:
        database.engine.dispose()


def _check_sqlite(_settings: Settings) -> Check:
    """An affected version is no failure, since it is not used in the way that is affected."""
    safe = wal_is_safe(sqlite.sqlite_version_info)
    journal = "WAL" if safe else "TRUNCATE (this version's WAL can corrupt data; install pysqlite3 0.6.1 or later)"
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
    low = free < LOW_DISK_BYTES
    advice = (
        "; below 5 GiB a run may not be able to save: remove old jobs or models, or move LORADECK_HOME" if low else ""
    )
    return Check("disk", not low, f"{free / 1024**3:.1f} GiB free under {folder}{advice}")


def _check_database(settings: Settings) -> Check:
    database, folder = Database(settings.effective_database_url), DataFolder(settings.home)
    try:
        refuse_damage(database, folder, thorough=True)
    except DatabaseDamaged as error:
        return Check("database", False, f"{error.message} {error.advice}")
    except sqlite.OperationalError as error:
        return Check("database", False, f"{database.path} cannot be checked: {error}; try again")
    if not database.path.exists():
        return Check("database", True, "not there yet; it is made at the first start")
    return Check("database", True, f"{database.path}: ok")


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
