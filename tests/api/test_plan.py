"""POST /api/v1/plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from app.core.planning.config import load_config

CONFIG = load_config(Path(__file__).parents[1] / "fixtures" / "configs" / "llama-3.2-1b.json")
SPEC = {"base_model": "not-registered", "dataset": "nor-this"}


def ask(client: TestClient, **body: Any) -> Any:
    return client.post("/api/v1/plan", json=body)


def test_plans_a_model_that_is_not_registered_from_its_config(client: TestClient) -> None:
    plan = ask(client, spec={**SPEC, "max_steps": 20}, config=CONFIG, vram_gb=24).json()

    assert plan["fits"] is True
    assert plan["peak_bytes"] == sum(plan["components"].values())
    assert plan["all_parameters"] - plan["trainable_parameters"] == 1_235_814_400
    assert plan["steps"] == 20
    assert plan["warnings"] == []
    assert ask(client, spec=SPEC, config=CONFIG, vram_gb=1).json()["fits"] is False
    assert ask(client, spec=SPEC, config=CONFIG).json()["fits"] is None  # no GPU here, and none was named


def test_takes_yaml_and_gives_warnings_with_a_fix(client: TestClient) -> None:
    text = "base_model: m\ndataset: d\nlearning_rate: 0.01\n"
    (warning,) = ask(client, yaml=text, config=CONFIG).json()["warnings"]

    assert set(warning) >= {"code", "message", "fix"}
    assert warning["fix"] == {"learning_rate": 2e-4}


def test_what_cannot_be_planned_is_422_with_its_field(client: TestClient) -> None:
    for body, field in (
        ({"spec": {**SPEC, "r": 0}, "config": CONFIG}, "r"),
        ({"spec": SPEC, "config": {"model_type": "resnet"}}, "base_model"),
        ({"spec": SPEC}, "base_model"),
        ({"spec": {**SPEC, "target_modules": ["nothing"]}, "config": CONFIG}, "target_modules"),
        ({}, "spec"),
    ):
        answer = ask(client, **body)
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, field), body
