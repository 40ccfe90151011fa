"""`doctor` says what is wrong and what to do; a missing GPU or training stack is no fault."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.core import doctor
from app.core.artifacts.manifest import hash_file, seal
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


def test_a_sound_installation_is_well(settings: Settings, filled: Database) -> None:
    checks = run_checks(settings)
    assert [each for each in checks if not each.ok] == []
    assert [each.name for each in checks][3:8] == ["database", "secrets", "checkpoints", "artifacts", "leftovers"]
    assert "1 are whole" in next(each.message for each in checks if each.name == "artifacts")
    assert filled.path.exists()


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
    assert "loradeck restore FILE --force" in found.message


def test_a_database_that_is_lost_is_a_fault(check: Callable[[str], Check], folder: DataFolder) -> None:
    folder.job(1).mkdir()
    found = check("database")
    assert not found.ok
    assert "is missing, but" in found.message


@pytest.mark.parametrize("name", ["api_token", "server.json", "loradeck.db"])
def test_a_secret_that_others_can_read_is_a_fault(
    check: Callable[[str], Check], folder: DataFolder, filled: Database, name: str
) -> None:
    assert check("secrets").ok
    (folder.home / name).touch()
    (folder.home / name).chmod(0o644)
    found = check("secrets")
    assert not found.ok
    assert f"chmod 600 {folder.home / name}" in found.message


@pytest.mark.usefixtures("filled")
def test_a_flipped_byte_of_what_a_job_produced_is_found_unless_sizes_alone_are_looked_at(
    settings: Settings, folder: DataFolder
) -> None:
    weights = folder.job(1) / "adapter" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[2500] ^= 1
    weights.write_bytes(content)

    def artifacts(hashes: bool) -> Check:
        return next(each for each in run_checks(settings, hashes=hashes) if each.name == "artifacts")

    assert artifacts(hashes=False).ok
    found = artifacts(hashes=True)
    assert not found.ok
    assert f"{weights.parent}: {weights.name} is damaged" in found.message
    weights.write_bytes(content[:-1])
    assert "4999 bytes instead of 5000" in artifacts(hashes=False).message


@pytest.mark.parametrize("damaged", ["optimizer.pt", "meta.json"])
@pytest.mark.usefixtures("filled")
def test_a_state_that_does_not_verify_is_a_fault(
    check: Callable[[str], Check], folder: DataFolder, damaged: str
) -> None:
    state = folder.job(1) / "state" / "step-20"
    state.mkdir(parents=True)
    (state / "optimizer.pt").write_bytes(b"moments")
    files = [{"path": "optimizer.pt", "bytes": 7, "sha256": hash_file(state / "optimizer.pt")}]
    (state / "meta.json").write_text(seal({"files": files}))
    assert check("checkpoints").message.startswith("1 states")
    content = bytearray((state / damaged).read_bytes())
    content[3] ^= 1
    (state / damaged).write_bytes(content)
    found = check("checkpoints")
    assert not found.ok
    assert str(state) in found.message
    assert "passed over" in found.message


@pytest.mark.usefixtures("filled")
def test_leftovers_are_named_once_nobody_writes_to_them(check: Callable[[str], Check], folder: DataFolder) -> None:
    assert check("leftovers").message == "none"
    left = [folder.job(1) / ".adapter.partial", folder.job(1) / "state" / ".step-3.removed", folder.uploads / "tmpx"]
    for path in left:
        path.mkdir(parents=True)
        (path / "file").write_bytes(b"x" * 2**20)
    assert check("leftovers").message == "none"  # they may be at work
    for path in (path for parent in left for path in (parent, parent / "file")):
        os.utime(path, (0, 0))
    folder.job(9).mkdir()  # which the database does not know
    found = check("leftovers")
    assert found.ok
    assert found.message.startswith("3.0 MiB in")
    for path in (*left, folder.job(9)):
        assert str(path) in found.message
    assert str(folder.job(1)) + "," not in found.message


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
