"""The settings page: the hub token is stored, shown masked, removed."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.core.paths import DataFolder

TOKEN = "hf_" + "Q7vX" * 8 + "wxyz"
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)


def test_a_token_is_stored_and_shown_masked(client: TestClient, folder: DataFolder) -> None:
    assert "Not set." in client.get("/settings").text
    stored = client.post("/settings/hub-token", data={"token": TOKEN}, headers=SAME_SITE)
    assert (stored.status_code, stored.url.path) == (200, "/settings")
    assert "hf_…wxyz" in stored.text
    assert TOKEN not in stored.text
    assert (folder.secrets / "hf_token").read_text() == TOKEN
    removed = client.post("/settings/hub-token/remove", headers=SAME_SITE)
    assert "Not set." in removed.text


def test_what_is_no_token_is_said_beside_its_field(client: TestClient) -> None:
    wrong = client.post("/settings/hub-token", data={"token": f"{TOKEN} {TOKEN}"}, headers=SAME_SITE)
    assert wrong.status_code == 422
    assert 'aria-invalid="true"' in wrong.text
    assert "holds spaces" in wrong.text
    assert TOKEN not in wrong.text
    region = client.post("/settings/hub-token", data={"token": ""}, headers={**SAME_SITE, "HX-Request": "true"})
    assert region.text.lstrip().startswith('<section id="hub-token"')


def test_a_token_of_the_environment_is_said(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    page = client.get("/settings").text
    assert "From <code>HF_TOKEN</code>" in page
    assert "hf_…wxyz" in page
    assert "Remove the token" not in page
