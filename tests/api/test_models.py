"""Base models over the API."""

from __future__ import annotations

import json
from pathlib import Path

from fastapi.testclient import TestClient

from tests.api.conftest import Shown
from tests.core.models.safetensors import PARAMETERS, write_model


def test_a_folder_is_added_listed_and_shown(client: TestClient, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "llama")
    response = client.post("/api/v1/models", json={"path": str(folder)})
    assert response.status_code == 201
    model = response.json()
    assert model == {
        "id": model["id"], "name": "llama", "status": "ready", "path": str(folder),
        "architecture": "LlamaForCausalLM", "parameters": PARAMETERS, "bytes": model["bytes"], "max_length": 2048,
        "linear_modules": ["down_proj", "q_proj", "v_proj"], "has_chat_template": False,
        "needs_code": False, "error": None,
    }  # fmt: skip
    assert client.get("/api/v1/models/llama").json() == client.get(f"/api/v1/models/{model['id']}").json() == model
    assert model in client.get("/api/v1/models").json()


def test_a_hub_id_is_registered_and_its_import_queued(client: TestClient) -> None:
    model = client.post("/api/v1/models", json={"path": "owner/model", "name": "theirs"}).json()
    assert (model["name"], model["status"], model["path"]) == ("theirs", "importing", None)
    (job,) = client.get("/api/v1/jobs", params={"kind": "import"}).json()["jobs"]
    assert (job["name"], job["spec"]) == ("import theirs", {"kind": "hub", "hub_id": "owner/model"})


REFUSED: list[tuple[dict[str, object], str]] = [
    ({}, "path"),
    ({"path": ""}, "path"),
    ({"path": 5}, "path"),
    ({"path": "/etc/passwd"}, "path"),
    ({"path": "/\0"}, "path"),
    ({"path": "~nobody-here"}, "path"),
    ({"path": "a" * 5000}, "path"),
    ({"path": "\ud800"}, "path"),
    ({"path": "owner/model", "name": ""}, "name"),
    ({"path": "owner/model", "name": "x" * 121}, "name"),
    ({"path": "owner/model", "colour": "red"}, "colour"),
]


def test_refused_models_name_the_field(client: TestClient, refused: Shown) -> None:
    before = client.get("/api/v1/models").json()
    for body, field in REFUSED:
        response = client.post("/api/v1/models", content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert refused(response, 422, "invalid_input")["field"] == field, body
    assert client.get("/api/v1/models").json() == before


def test_a_name_is_used_once(client: TestClient, refused: Shown) -> None:
    error = refused(client.post("/api/v1/models", json={"path": "owner/tiny"}), 409, "conflict")
    assert (error["advice"], error["field"]) == ("Give another name.", "name")
