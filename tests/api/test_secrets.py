"""Secrets over the API: set, asked for, removed; never sent back."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.core.paths import DataFolder
from tests.api.conftest import Shown

TOKEN = "hf_" + "Q7vX" * 8 + "wxyz"
PATH = "/api/v1/secrets"


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)


def test_a_token_is_set_asked_for_and_removed(client: TestClient, folder: DataFolder) -> None:
    unset = next(each for each in client.get(PATH).json() if each["name"] == "hf_token")
    assert (unset["name"], unset["source"], unset["shown"]) == ("hf_token", None, None)
    answers = [client.put(f"{PATH}/hf_token", json={"value": TOKEN}), client.get(PATH)]
    assert all(answer.status_code == 200 and TOKEN not in answer.text for answer in answers)
    assert answers[0].json() == {**unset, "source": "stored", "shown": "hf_…wxyz"}
    assert (folder.secrets / "hf_token").read_text() == TOKEN
    assert client.delete(f"{PATH}/hf_token").json() == unset
    assert not (folder.secrets / "hf_token").exists()


def test_what_is_wrong_is_said_without_the_value(client: TestClient, refused: Shown) -> None:
    wrong = client.put(f"{PATH}/hf_token", json={"value": f"{TOKEN} x"})
    assert refused(wrong, 422)["field"] == "value"
    assert TOKEN not in wrong.text
    not_text = client.put(f"{PATH}/hf_token", json={"value": [TOKEN]})
    refused(not_text, 422)
    assert TOKEN not in not_text.text
    refused(client.put(f"{PATH}/other", json={"value": TOKEN}), 404)
    refused(client.delete(f"{PATH}/hf_token"), 404)


def test_nobody_without_the_api_token_sets_or_sees_one(client: TestClient, refused: Shown) -> None:
    del client.headers["Authorization"]
    refused(client.get(PATH), 401)
    assert client.put(f"{PATH}/hf_token", json={"value": TOKEN}).status_code in (401, 403)


def test_an_error_that_repeats_a_token_shows_it_masked(client: TestClient, refused: Shown) -> None:
    error = refused(client.get(f"/api/v1/models/{TOKEN}"), 404)
    assert "hf_…wxyz" in error["message"]
    assert TOKEN not in str(error)
