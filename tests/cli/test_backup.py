"""`loradeck backup`, `restore` and `doctor`, beside a running dashboard and without one."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.live_server import Served


def test_a_backup_beside_a_running_dashboard_is_restored_elsewhere(
    loradeck: Command, server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "b.zip"
    made = loradeck("backup", target, "--with-files", "--json")
    assert (made.code, made.err) == (0, "")
    assert made.json["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert made.json["database"]["rows"]["dataset"] >= 1
    refused = loradeck("restore", target, "--force")
    assert refused.code == 1
    assert f"A dashboard runs on {server.home}" in refused.err
    monkeypatch.setenv("LORADECK_HOME", str(tmp_path / "other"))
    restored = loradeck("restore", target, "--json")
    assert restored.code == 0, restored.err
    assert restored.json["files"] == made.json["files"]["count"]
    assert restored.json["rows"] == {
        **made.json["database"]["rows"],
        "event": made.json["database"]["rows"]["event"] + 1,
    }
    again = loradeck("restore", target)
    assert again.code == 1
    assert "--force" in again.err


def test_a_backup_says_in_words_what_it_holds_and_what_not(loradeck: Command, server: Served, tmp_path: Path) -> None:
    said = loradeck("backup", tmp_path / "b.zip")
    assert said.code == 0
    for part in ("sha256", "database:", "not in it: files of datasets", "not in it: the API token"):
        assert part in said.out
    assert zipfile.is_zipfile(tmp_path / "b.zip")
    assert server.token not in said.out


def test_an_existing_file_is_not_overwritten(loradeck: Command, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_text("mine")
    refused = loradeck("backup", tmp_path / "b.zip", "--json")
    assert refused.code == 1
    assert refused.json["error"]["field"] == "FILE"
    assert (tmp_path / "b.zip").read_text() == "mine"
    assert loradeck("restore", tmp_path / "none.zip").code == 2


def test_doctor_looks_at_a_folder_in_use(loradeck: Command, server: Served) -> None:
    found = {check["name"]: check for check in loradeck("doctor", "--quick", "--json").json["checks"]}
    assert found["database"]["message"] == f"{server.home / 'loradeck.db'}: ok"
    assert found["secrets"]["ok"]
    assert found["artifacts"]["message"].endswith("by their sizes")
