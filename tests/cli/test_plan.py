"""`loradeck plan`: from a config on this machine without a dashboard, else of a model that the dashboard has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.core.database import Database
from app.core.models.models import BaseModel
from tests.cli.conftest import Command

CONFIG = Path(__file__).parents[1] / "fixtures" / "configs" / "llama-3.2-1b.json"
PROMISED = {"method", "trainable_parameters", "all_parameters", "adapter_bytes", "peak_bytes", "components", "fits",
            "warnings"}  # fmt: skip


def write_spec(folder: Path, **values: Any) -> Path:
    path = folder / "job.yaml"
    path.write_text(json.dumps({"base_model": str(CONFIG), "dataset": "not-registered", **values}))  # JSON is YAML
    return path


def test_needs_no_dashboard_where_the_config_is_here(
    loradeck: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORADECK_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LORADECK_TOKEN", "none")
    found = loradeck("plan", write_spec(tmp_path), "--vram-gb", 24, "--json")

    assert found.code == 0
    assert found.json.keys() >= PROMISED
    assert found.json["components"].keys() == {
        "weights", "adapter", "gradients", "optimizer", "activations", "logits", "overhead",
    }  # fmt: skip
    assert found.json["fits"] is True
    assert loradeck("plan", write_spec(tmp_path), "--vram-gb", 1, "--json").json["fits"] is False


def test_a_folder_with_a_config_alone_will_do_and_is_told_in_words(loradeck: Command, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(CONFIG.read_bytes())
    spec = write_spec(tmp_path, base_model=str(tmp_path), learning_rate=0.1)
    found = loradeck("plan", spec, "--vram-gb", 24)

    assert found.code == 0
    assert "fits in 24.00 GiB" in found.out
    assert "learning_rate: 0.1 is above what is usual" in found.out
    assert "Fix: learning_rate: 0.0002" in found.out


def test_a_registered_model_is_planned_by_the_dashboard(loradeck: Command, database: Database, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(CONFIG.read_bytes())
    with database.write() as session:
        model = BaseModel(name="planned", status="ready", source={"kind": "local"}, path=str(tmp_path), created_at=0.0)
        session.add(model)
    found = loradeck("plan", write_spec(tmp_path, base_model="planned"), "--json")

    assert found.code == 0
    assert found.json["all_parameters"] - found.json["trainable_parameters"] == 1_235_814_400
    assert found.json["vram_bytes"] is None


@pytest.mark.parametrize("missing", ["./nowhere", "nowhere/config.json"])
def test_a_path_to_nothing_is_exit_2_without_a_dashboard(
    loradeck: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv("LORADECK_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LORADECK_TOKEN", "none")
    refused = loradeck("plan", write_spec(tmp_path, base_model=missing), "--json")
    assert (refused.code, refused.json["error"]["field"]) == (2, "base_model")


def test_bad_input_is_exit_2_with_its_field(loradeck: Command, tmp_path: Path) -> None:
    for values, field in (
        ({"r": 0}, "r"),
        ({"base_model": "nowhere"}, "base_model"),
        ({"target_modules": ["nothing"]}, "target_modules"),
    ):
        refused = loradeck("plan", write_spec(tmp_path, **values), "--json")
        assert (refused.code, refused.json["error"]["field"]) == (2, field), refused.err
    assert loradeck("plan", tmp_path / "none.yaml").code == 2
