"""Several people on one box: what each may do, what is written down, and whose job is whose."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from app.core.accounts import audit
from app.core.accounts.models import ApiToken, AuditEntry, User
from app.core.accounts.roles import Role
from app.core.accounts.users import find_user
from app.core.database import Database
from tests.security.conftest import PASSWORD, LogIn, browse


def test_a_job_says_who_queued_it(app: FastAPI, logged_in: LogIn, bearer: TestClient) -> None:
    for client, name in ((logged_in(Role.MEMBER), "one"), (logged_in(Role.ADMIN), "two"), (bearer, "three")):
        assert client.post("/api/v1/models", json={"path": f"owner/{name}"}).status_code == 201
    viewer = logged_in(Role.VIEWER)
    jobs = viewer.get("/api/v1/jobs", params={"kind": "import"}).json()["jobs"]
    owners = {job["name"].rpartition("/")[2].rpartition(" ")[2]: job["queued_by"] for job in jobs}
    assert {name: owners[name] for name in ("one", "two", "three")} == {"one": "member", "two": "admin", "three": None}
    mine = next(job["id"] for job in jobs if job["queued_by"] == "member")
    assert "by member" in viewer.get("/jobs").text
    assert "by member" in viewer.get(f"/jobs/{mine}").text


def test_a_viewer_sees_everything_and_changes_nothing(app: FastAPI, logged_in: LogIn, database: Database) -> None:
    viewer = logged_in(Role.VIEWER)
    for path in ("/", "/jobs", "/queue", "/datasets", "/models", "/gpu", "/playground", "/account", "/api/v1/jobs"):
        assert viewer.get(path).status_code == 200, path
    page = viewer.get("/queue").text
    assert "Your role is <strong>viewer</strong>" in page
    assert "viewer.css" in page
    for path in ("/queue/pause", "/jobs/demo", "/models", "/datasets", "/users", "/settings/hub-token"):
        assert viewer.post(path, data={"path": "owner/name"}).status_code == 403, path
    assert viewer.get("/jobs/new").status_code == 403
    assert viewer.get("/settings").status_code == 403
    with database.read() as session:
        assert session.exec(select(AuditEntry)).all() == []


def test_a_member_trains_and_administers_nothing(app: FastAPI, logged_in: LogIn) -> None:
    member = logged_in(Role.MEMBER)
    assert member.get("/jobs/new").status_code == 200
    assert member.post("/queue/pause").status_code == 303
    for path in ("/users", "/audit", "/settings"):
        assert member.get(path).status_code == 403, path
    assert member.post("/users", data={"name": "eve", "password": PASSWORD, "role": "admin"}).status_code == 403
    assert "viewer.css" not in member.get("/").text


def test_an_admin_makes_changes_and_removes_users(app: FastAPI, logged_in: LogIn, database: Database) -> None:
    admin, member = logged_in(Role.ADMIN), logged_in(Role.MEMBER)
    made = admin.post("/users", data={"name": "eve", "password": PASSWORD, "role": "viewer"})
    assert made.headers["location"] == "/users"
    assert browse(app).post("/login", data={"name": "eve", "password": PASSWORD}).status_code == 303
    taken = admin.post("/users", data={"name": "EVE", "password": PASSWORD, "role": "viewer"})
    assert (taken.status_code, "already" in taken.text) == (422, True)
    with database.read() as session:
        ids = {name: find_user(session, name).key for name in ("eve", "member", "admin")}  # type: ignore[union-attr]
    assert member.post("/queue/pause").status_code == 303
    assert admin.post(f"/users/{ids['member']}/role", data={"role": "viewer"}).status_code == 303
    assert member.post("/queue/resume").status_code == 403, "from the next request on"
    assert admin.post(f"/users/{ids['member']}/log-out").status_code == 303
    assert member.get("/").status_code == 303
    assert admin.post(f"/users/{ids['eve']}/password", data={"password": "short"}).status_code == 422
    assert admin.post(f"/users/{ids['eve']}/remove").status_code == 303
    assert browse(app).post("/login", data={"name": "eve", "password": PASSWORD}).status_code == 401
    assert admin.post(f"/users/{ids['admin']}/remove").status_code == 409, "the only admin stays"
    assert admin.post(f"/users/{ids['admin']}/role", data={"role": "viewer"}).status_code == 409
    assert admin.post("/users/99/remove").status_code == 404


def test_changes_are_in_the_audit_log_with_who_and_where(app: FastAPI, logged_in: LogIn) -> None:
    member, admin = logged_in(Role.MEMBER), logged_in(Role.ADMIN)
    member.post("/queue/pause")
    member.post("/jobs/99/cancel")
    page = admin.get("/audit").text
    assert "pause all" in page
    assert "testclient" in page
    assert page.count("<td>member</td>") == 1, "what was refused is no change"


def test_the_audit_log_is_pruned_by_age_and_number(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_LOOK_EVERY", 10)
    monkeypatch.setattr(audit, "KEEP_ROWS", 15)
    with database.write() as session:
        for n in range(40):
            audit.note(session, "a", "b", str(n))
    with database.read() as session:
        kept = [int(entry.subject) for entry in audit.list_entries(session)]
    assert kept == list(range(39, 24, -1))


def test_a_token_is_shown_once_and_opens_what_its_scope_allows(
    app: FastAPI, logged_in: LogIn, database: Database, users: dict[Role, User]
) -> None:
    member = logged_in(Role.MEMBER)
    page = member.post("/account/tokens", data={"name": "ci", "scope": "read"}).text
    secret = page.partition('class="secret">')[2].partition("<")[0]
    assert secret.startswith("ldk_")
    again = member.get("/account").text
    assert secret not in again
    assert f"{secret[:12]}_••••••••" in again
    with database.read() as session:
        row = session.exec(select(ApiToken)).one()
    assert secret not in str(row.model_dump())
    script = browse(app, Authorization=f"Bearer {secret}")
    assert script.get("/api/v1/jobs").status_code == 200
    assert script.post("/api/v1/queue/pause").status_code == 403
    assert script.post("/account/tokens", data={"name": "more", "scope": "read"}).status_code == 403, "by people only"
    assert "never" not in member.get("/account").text.partition(row.prefix)[2].partition("</tr>")[0]
    assert logged_in(Role.ADMIN).post(f"/account/tokens/{row.id}/revoke").status_code == 404, "another's token"
    assert member.post(f"/account/tokens/{row.id}/revoke").status_code == 303
    assert script.get("/api/v1/jobs").status_code == 401


def test_a_token_needs_a_name(logged_in: LogIn) -> None:
    for name in ("", " ", "x" * 61, "a\nb"):
        answer = logged_in(Role.VIEWER).post("/account/tokens", data={"name": name, "scope": "read"})
        assert answer.status_code == 422
        assert "1 to 60 characters" in answer.text
