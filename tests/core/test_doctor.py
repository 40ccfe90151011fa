"""`doctor` says what is wrong and what to do; a missing GPU or training stack is no fault."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.core import doctor
from app.core.database import Database
from app.core.doctor import Check, run_checks
from app.core.jobs.models import WorkerState
from app.core.paths import DataFolder
from app.core.settings import Settings


@pytest.fixture(autouse=True)
def _enough_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _path: SimpleNamespace(free=100 * 1024**3))


@pytest.fixture
def check(settings: Settings) -> Callable[[str], Check]:
    def check(name: str) -> Check:
        return next(each for each in run_checks(settings) if each.name == name)

    return check


def test_before_the_first_start_all_is_well_and_nothing_is_made(settings: Settings) -> None:
    checks = run_checks(settings)
    assert [each.name for each in checks] == [
        "sqlite", "data folder", "disk", "database", "front-end assets", "training stack", "gpu",
        "capabilities",
    ]  # fmt: skip
    assert [each for each in checks if not each.ok] == []
    assert not settings.home.exists()


@pytest.mark.usefixtures("database")
def test_a_sound_installation_is_well(settings: Settings) -> None:
    assert [each for each in run_checks(settings) if not each.ok] == []


def test_a_check_is_json(check: Callable[[str], Check]) -> None:
    disk = check("disk").to_json()
    assert disk["name"] == "disk"
    assert disk["ok"] is True
    assert "100.0 GiB free" in disk["message"]


def test_an_affected_sqlite_is_said(check: Callable[[str], Check], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "journal mode" in check("sqlite").message
    monkeypatch.setattr(doctor, "wal_is_safe", lambda _version: False)
    assert "TRUNCATE" in check("sqlite").message
    monkeypatch.setattr(doctor, "wal_is_safe", lambda _version: True)
    assert check("sqlite").message.endswith("journal mode WAL")


def test_a_folder_that_others_can_read_is_a_fault(check: Callable[[str], Check], folder: DataFolder) -> None:
    folder.home.chmod(0o755)
    found = check("data folder")
    assert not found.ok
    assert f"chmod 700 {folder.home}" in found.message


def test_a_folder_that_cannot_be_written_is_a_fault(
    check: Callable[[str], Check], folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda _path, _mode: False)
    found = check("data folder")
    assert not found.ok
    assert f"{folder.home} cannot be written" in found.message


def test_a_full_disk_is_a_fault(check: Callable[[str], Check], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1024**3))
    assert not check("disk").ok


@pytest.mark.parametrize("damage", ["header", "page"])
def test_a_damaged_database_is_a_fault(check: Callable[[str], Check], database: Database, damage: str) -> None:
    database.engine.dispose()
    content = bytearray(database.path.read_bytes())
    start = 0 if damage == "header" else 4096
    content[start : start + 2048] = b"\xa5" * 2048
    database.path.write_bytes(content)
    found = check("database")
    assert not found.ok
    assert str(database.path) in found.message


def test_missing_assets_are_a_fault(
    check: Callable[[str], Check], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "bundled", lambda name: tmp_path / name)
    found = check("front-end assets")
    assert (found.ok, found.message) == (False, "missing; run `make assets`")


def test_without_the_training_stack_this_is_said_to_be_no_worker(
    check: Callable[[str], Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    found = check("training stack")
    assert found.ok
    assert found.message == "not installed here (torch): this machine cannot be a worker"
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda _name: "1.0")
    assert "torch 1.0" in check("training stack").message


def test_without_a_gpu_jobs_are_said_to_run_on_the_cpu(
    check: Callable[[str], Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise doctor.pynvml.NVMLError(doctor.pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(doctor.pynvml, "nvmlInit", fail)
    found = check("gpu")
    assert found.ok
    assert "jobs run on the CPU" in found.message


def test_what_the_worker_can_run_is_said(check: Callable[[str], Check], database: Database) -> None:
    assert check("capabilities").message == "not known yet: no worker has said what it can do"
    can = {
        "torch": "2.13.0",
        "device": "cuda:0",
        "device_name": "Test GPU",
        "cuda": "12.8",
        "bf16": True,
        "bitsandbytes": None,
        "paged": False,
        "cannot": {"4bit": "no binary"},
    }
    with database.write() as session:
        state = WorkerState(pid=1, pid_started_at=0, boot_id="", version="", started_at=0, heartbeat_at=0)
        state.capabilities = can
        session.add(state)
    found = check("capabilities")
    assert found.ok
    assert found.message == (
        "Test GPU, torch 2.13.0 (CUDA 12.8); bf16 yes; bitsandbytes not usable; paged optimizers no; no 4bit: no binary"
    )


def test_what_the_worker_can_run_is_not_known_from_an_older_database(
    check: Callable[[str], Check], database: Database
) -> None:
    with database.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE worker_state DROP COLUMN capabilities")
    found = check("capabilities")
    assert found.ok
    assert "not known: " in found.message
