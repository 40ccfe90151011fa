"""The data folder belongs to its owner alone, and files are replaced whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.paths import DataFolder, bundled, write_private


@pytest.fixture
def _open_umask() -> Iterator[None]:
    previous = os.umask(0)
    yield
    os.umask(previous)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("_open_umask")
def test_folders_are_closed_to_others_under_an_open_umask(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "a" / "home").create()
    made = [folder.home, folder.backups, folder.uploads, *(folder.home / n for n in ("jobs", "datasets", "models"))]
    assert {_mode(path) for path in made} == {0o700}


@pytest.mark.usefixtures("_open_umask")
def test_a_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o777)
    DataFolder(home).create()
    assert _mode(home) == 0o700


@pytest.mark.usefixtures("_open_umask")
def test_secrets_are_never_open_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("longer than what comes")
    path.chmod(0o666)
    (tmp_path / "secret.tmp").write_text("left by a crash")
    (tmp_path / "secret.tmp").chmod(0o666)
    write_private(path, "short")
    assert (path.read_text(), _mode(path)) == ("short", 0o600)
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]


def test_folders_are_named_by_id(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    assert folder.attempt(3, 2) == tmp_path / "jobs" / "3" / "attempts" / "2"
    assert folder.dataset(4) == tmp_path / "datasets" / "4"
    assert folder.model(5) == tmp_path / "models" / "5"


@pytest.mark.parametrize("name", ["templates", "static", "migrations"])
def test_bundled_folders_are_there(name: str) -> None:
    assert bundled(name).is_dir()
