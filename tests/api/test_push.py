"""Uploads to the hub over the API and from the page: queued as asked, or refused at the field."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.core.database import Database
from app.core.jobs.models import Job, WorkerState
from app.core.paths import DataFolder
from tests.api.conftest import Shown
from tests.api.test_exports import Merged
from tests.api.test_exports import merged as merged

SAME_SITE = {"Sec-Fetch-Site": "same-origin", "HX-Request": "true"}


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")


@pytest.fixture
def no_token(_token: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")


def _worker(database: Database, *, hub_token: bool) -> None:
    with database.write() as session:
        session.add(
            WorkerState(
                pid=1, pid_started_at=0, boot_id="", version="", started_at=0, heartbeat_at=0, hub_token=hub_token
            )
        )


@pytest.mark.usefixtures("no_token")
def test_without_a_token_nothing_is_queued_and_what_to_do_is_said(
    client: TestClient, merged: Merged, database: Database, refused: Shown
) -> None:
    _worker(database, hub_token=False)
    source = merged()
    path = f"/api/v1/jobs/{source.id}/artifacts/merged/push"
    error = refused(client.post(path, json={"repo": "me/mine"}), 409)
    assert error["message"].startswith("No hub token is set")
    assert "loradeck secrets set hf_token" in error["advice"]
    typed = {"artifact": str(client.get(f"/api/v1/jobs/{source.id}/artifacts").json()[0]["id"]), "repo": "me/mine"}
    page = client.post(f"/jobs/{source.id}/push", data=typed, headers=SAME_SITE)
    assert page.status_code == 422
    for part in ("nothing is uploaded without one", "loradeck secrets set hf_token", 'value="me/mine"'):
        assert part in page.text
    assert client.get("/api/v1/jobs", params={"kind": "export"}).json()["total"] == 0


@pytest.mark.usefixtures("no_token")
def test_a_token_that_the_worker_has_by_itself_is_one(client: TestClient, merged: Merged, database: Database) -> None:
    _worker(database, hub_token=True)
    source = merged()
    assert "No hub token is set here" not in client.get(f"/jobs/{source.id}").text
    done = client.post(f"/api/v1/jobs/{source.id}/artifacts/merged/push", json={"repo": "me/mine"})
    assert done.status_code == 201


def test_an_upload_is_queued_private_unless_asked_otherwise(client: TestClient, merged: Merged) -> None:
    source = merged()
    path = f"/api/v1/jobs/{source.id}/artifacts/merged/push"
    job = client.post(path, json={"repo": " me/mine "}).json()
    assert (job["kind"], job["source_job_id"], job["status"]) == ("export", source.id, "queued")
    asked = {"format": "hub", "kind": "merged", "repo": "me/mine", "private": True, "existing": False}
    assert asked.items() <= job["spec"].items()
    public = client.post(path, json={"repo": "me/mine", "private": False, "existing": True}).json()
    assert (public["spec"]["private"], public["spec"]["existing"]) == (False, True)


@pytest.mark.parametrize(
    "repo", ["", "mine", "a/b/c", "me/", "/x", "me/a b", "me/..", "me/a--b", "m/x.git", "me/-x", "../x"]
)
def test_what_is_no_repository_is_refused_at_its_field(
    client: TestClient, merged: Merged, refused: Shown, repo: str
) -> None:
    path = f"/api/v1/jobs/{merged().id}/artifacts/merged/push"
    assert refused(client.post(path, json={"repo": repo}), 422)["field"] == "repo"
    assert client.get("/api/v1/jobs", params={"kind": "export"}).json()["total"] == 0


def test_only_what_is_there_and_verified_is_taken(client: TestClient, merged: Merged, refused: Shown) -> None:
    source = merged(passed=False)
    path = f"/api/v1/jobs/{source.id}/artifacts"
    assert "did not pass" in refused(client.post(f"{path}/merged/push", json={"repo": "a/b"}), 409)["message"]
    refused(client.post(f"{path}/gguf/push", json={"repo": "a/b"}), 404)
    assert "Upload to the Hugging Face Hub" not in client.get(f"/jobs/{source.id}").text


def test_the_payload_holds_what_the_child_needs_and_no_token(
    client: TestClient, merged: Merged, database: Database, folder: DataFolder
) -> None:
    from pathlib import Path

    from worker.lanes import is_light, uses_hub
    from worker.payload import build_payload

    job_id = client.post(f"/api/v1/jobs/{merged().id}/artifacts/merged/push", json={"repo": "me/mine"}).json()["id"]
    with database.write() as session:
        job = session.get_one(Job, job_id)
        payload = build_payload(session, folder, Path("/nowhere"), job)
        assert uses_hub(job)
        assert not is_light(job)
    assert {file["path"] for file in payload["files"]} == {"meta.json"}
    assert (payload["base_name"], payload["base_hub_id"]) == ("tiny", None)
    assert "token" not in str(payload)


@pytest.mark.usefixtures("no_token")
def test_the_page_offers_it_and_says_what_is_wrong_with_what_was_typed_kept(
    client: TestClient, merged: Merged, folder: DataFolder
) -> None:
    source = merged()
    page = client.get(f"/jobs/{source.id}").text
    assert "Upload to the Hugging Face Hub" in page
    assert "No hub token is set here" in page
    artifact = client.get(f"/api/v1/jobs/{source.id}/artifacts").json()[0]["id"]
    typed = {"artifact": str(artifact), "repo": "not a repo", "visibility": "public"}
    wrong = client.post(f"/jobs/{source.id}/push", data=typed, headers=SAME_SITE)
    assert wrong.status_code == 422
    for part in ('value="not a repo"', 'aria-invalid="true"', "is not a repository", '"public" selected', "open"):
        assert part in wrong.text
    client.put("/api/v1/secrets/hf_token", json={"value": "hf_abcdefghijklmnop"})
    done = client.post(f"/jobs/{source.id}/push", data={**typed, "repo": "me/mine"}, headers=SAME_SITE)
    assert "/jobs/" in done.headers["HX-Redirect"]
    again = client.get(f"/jobs/{source.id}").text
    assert "to me/mine" in again
    assert "No hub token is set here" not in again


def test_the_result_links_to_the_repository_and_its_commit(
    client: TestClient, merged: Merged, database: Database
) -> None:
    source = merged()
    job_id = client.post(f"/api/v1/jobs/{source.id}/artifacts/merged/push", json={"repo": "me/mine"}).json()["id"]
    summary = {
        "repo": "me/mine", "url": "https://hub.test/me/mine", "commit": "c0ffee" * 6, "files": 3, "bytes": 1000,
        "already_there": False,
    }  # fmt: skip
    with database.write() as session:
        session.get_one(Job, job_id).summary = summary
    for page in (client.get(f"/jobs/{job_id}").text, client.get(f"/jobs/{source.id}").text):
        assert 'href="https://hub.test/me/mine"' in page
        assert f'href="https://hub.test/me/mine/commit/{"c0ffee" * 6}"' in page
    with database.write() as session:
        session.get_one(Job, job_id).summary = {**summary, "url": "javascript:alert(1)"}
    assert "javascript:" not in client.get(f"/jobs/{job_id}").text


def test_what_is_being_uploaded_is_not_deleted(client: TestClient, merged: Merged, refused: Shown) -> None:
    source = merged()
    client.post(f"/api/v1/jobs/{source.id}/artifacts/merged/push", json={"repo": "me/mine"})
    error = refused(client.delete(f"/api/v1/jobs/{source.id}/artifacts/merged"), 409)
    assert "may need this" in error["message"]
