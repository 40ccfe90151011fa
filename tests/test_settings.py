"""Every setting is documented, with its real default, and nothing else is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.core.settings import Settings

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
_ROW = re.compile(r"^\| `LORADECK_(?P<name>[A-Z_]+)` \| (?P<default>[^|]+) \| (?P<meaning>[^|]+) \|$", re.MULTILINE)


def _rows() -> dict[str, tuple[str, str]]:
    found = [(row["name"].lower(), row["default"], row["meaning"]) for row in _ROW.finditer(DOCUMENT.read_text())]
    assert len({name for name, _, _ in found}) == len(found), "a setting has two rows"
    return {name: (default, meaning) for name, default, meaning in found}


def test_each_setting_has_its_row_and_each_row_its_setting() -> None:
    assert set(_rows()) == set(Settings.model_fields)


def test_the_table_holds_nothing_that_is_no_row() -> None:
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    assert len(lines) == len(Settings.model_fields)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_documented_defaults_are_the_real_ones(name: str) -> None:
    documented = _rows()[name][0]
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        default: Any = field.default_factory()  # type: ignore[call-arg]
    else:
        default = field.default
    if default is None:
        assert documented == "—" or name == "database_url"
    elif isinstance(default, Path):
        assert str(default).removeprefix(str(Path.home())) in documented
    else:
        assert documented == f"`{default if isinstance(default, str) else json.dumps(default)}`"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_says_what_it_means(name: str) -> None:
    assert Settings.model_fields[name].description
    assert len(_rows()[name][1]) > 20


def test_folders_follow_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LORADECK_HOME", "LORADECK_CACHE"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = Settings()
    assert (settings.home, settings.cache) == (tmp_path / "data" / "loradeck", tmp_path / "cache" / "loradeck")


def test_the_database_lies_in_the_data_folder_unless_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORADECK_HOME", str(tmp_path / "x"))
    assert Settings().effective_database_url == f"sqlite:///{tmp_path}/x/loradeck.db"
    monkeypatch.setenv("LORADECK_DATABASE_URL", "sqlite:////elsewhere.db")
    assert Settings().effective_database_url == "sqlite:////elsewhere.db"


def test_the_environment_outranks_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LORADECK_HOST=from-file\nLORADECK_LOG_LEVEL=DEBUG\nOTHER=1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    monkeypatch.setenv("LORADECK_HOST", "from-environment")
    settings = Settings()
    assert (settings.host, settings.log_level) == ("from-environment", "DEBUG")


def test_lists_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADECK_ALLOWED_HOSTS", '["box.lan", "b"]')
    monkeypatch.setenv("LORADECK_LOCAL_ROOTS", '["/models"]')
    settings = Settings()
    assert (settings.allowed_hosts, settings.local_roots) == (["box.lan", "b"], [Path("/models")])


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"PORT": "70000"}, ["PORT"]),
        ({"PORT": "x", "MAX_UPLOAD_BYTES": "0"}, ["PORT", "MAX_UPLOAD_BYTES"]),
        ({"OPEN_BIND": "perhaps"}, ["OPEN_BIND"]),
        ({"ALLOWED_HOSTS": "box.lan"}, ["ALLOWED_HOSTS"]),
        ({"LOCAL_ROOTS": '{"a": 1}'}, ["LOCAL_ROOTS"]),
    ],
)
def test_what_is_not_valid_is_named(monkeypatch: pytest.MonkeyPatch, values: dict[str, str], named: list[str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"LORADECK_{name}", value)
    with pytest.raises(InvalidInput) as caught:
        Settings.load()
    assert [fault.field for fault in caught.value.faults] == [f"LORADECK_{name}" for name in named]


def test_a_list_that_is_none_is_answered_with_the_form_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADECK_LOCAL_ROOTS", "/models")
    with pytest.raises(InvalidInput, match=r'A JSON list is expected, as in \["one", "two"\]'):
        Settings.load()
