"""Logins as a browser sees them: in, out, everywhere, and what ends with them."""

from __future__ import annotations

import time

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import Session, select

from app.core.accounts import passwords, sessions
from app.core.accounts.models import AuditEntry, LoginSession, User
from app.core.accounts.roles import Role
from app.core.accounts.users import set_role
from app.core.database import Database
from app.web import identities
from tests.security.conftest import PASSWORD, LogIn, browse


def _log_in(client: TestClient, name: str = "member", password: str = PASSWORD, next: str = "/") -> object:
    return client.post("/login", data={"name": name, "password": password, "next": next})


def _rows(database: Database) -> list[LoginSession]:
    with database.read() as session:
        return list(session.exec(select(LoginSession)))


def _entries(database: Database) -> list[tuple[str, str]]:
    with database.read() as session:
        return [(entry.actor, entry.action) for entry in session.exec(select(AuditEntry).order_by(AuditEntry.id))]


def test_a_login_opens_the_pages(app: FastAPI, users: dict[Role, User]) -> None:
    client = browse(app)
    response = client.post("/login", data={"name": " Member ", "password": PASSWORD, "next": "/jobs?q=a"})
    assert (response.status_code, response.headers["location"]) == (303, "/jobs?q=a")
    page = client.get("/jobs")
    assert page.status_code == 200
    assert ">member</a>" in page.text
    assert client.get("/login").status_code == 303
    assert client.get("/api/v1/jobs").status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(app: FastAPI, users: dict[Role, User]) -> None:
    cookie = browse(app).post("/login", data={"name": "member", "password": PASSWORD}).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    over_tls = TestClient(app, base_url="https://127.0.0.1", headers={"Sec-Fetch-Site": "same-origin"})
    over_tls.follow_redirects = False
    assert "Secure" in over_tls.post("/login", data={"name": "member", "password": PASSWORD}).headers["set-cookie"]


def test_the_database_holds_neither_password_nor_session_id(
    app: FastAPI, users: dict[Role, User], database: Database
) -> None:
    client = browse(app)
    _log_in(client)
    secret = client.cookies[app.state.identities.cookie]
    stored = "".join(str(row.model_dump()) for row in [*_rows(database), *users.values()])
    assert secret not in stored
    assert PASSWORD not in stored
    assert "$argon2id$" in users[Role.MEMBER].password_hash


def test_an_unknown_user_and_a_wrong_password_get_the_same_answer(
    app: FastAPI, users: dict[Role, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same work: each costs one Argon2."""
    verified: list[str] = []
    verify = passwords._hasher().verify
    monkeypatch.setattr(passwords._hasher(), "verify", lambda p, h: verified.append(h) or verify(p, h))
    answers = [browse(app).post("/login", data={"name": n, "password": "wrong password"}) for n in ("member", "nobody")]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].text.replace("member", "…") == answers[1].text.replace("nobody", "…")
    assert len(verified) == 2
    assert verified[0].rpartition("$")[0].rpartition("$")[0] == verified[1].rpartition("$")[0].rpartition("$")[0]


def test_row_13_login_rotates_the_id(app: FastAPI, users: dict[Role, User], database: Database) -> None:
    client = browse(app)
    client.cookies.set(app.state.identities.cookie, "chosen-by-somebody-else")
    _log_in(client)
    first = client.cookies.get(app.state.identities.cookie, domain="127.0.0.1")
    assert first not in (None, "chosen-by-somebody-else")
    client.cookies.clear()
    client.cookies.set(app.state.identities.cookie, str(first))
    _log_in(client)
    assert len(_rows(database)) == 1, "the login before is over"
    assert sessions.digest(str(first)) not in {row.id_hash for row in _rows(database)}


def test_logout_ends_the_login_at_once(app: FastAPI, logged_in: LogIn, database: Database) -> None:
    client = logged_in(Role.VIEWER)
    copy = browse(app, Cookie=f"{app.state.identities.cookie}={client.cookies[app.state.identities.cookie]}")
    assert copy.get("/jobs").status_code == 200
    assert client.post("/logout").headers["location"] == "/login"
    assert copy.get("/jobs").status_code == 303
    assert _rows(database) == []


def test_row_13_a_new_password_ends_the_other_logins(app: FastAPI, logged_in: LogIn) -> None:
    here, there = logged_in(Role.MEMBER), logged_in(Role.MEMBER)
    other = logged_in(Role.VIEWER)
    assert there.get("/").status_code == 200
    wrong = here.post("/account/password", data={"current": "not this one", "password": "another password"})
    assert wrong.status_code == 422
    assert there.get("/").status_code == 200
    short = here.post("/account/password", data={"current": PASSWORD, "password": "short"})
    assert "10 characters" in short.text
    assert here.post("/account/password", data={"current": PASSWORD, "password": "another password"}).status_code == 303
    assert [client.get("/").status_code for client in (here, there, other)] == [200, 303, 200]
    assert _log_in(browse(app), password=PASSWORD).status_code == 401  # type: ignore[attr-defined]
    assert _log_in(browse(app), password="another password").status_code == 303  # type: ignore[attr-defined]


def test_log_out_everywhere_and_one_other_browser(logged_in: LogIn, database: Database) -> None:
    here, there, third = (logged_in(Role.MEMBER) for _ in range(3))
    mine = sessions.digest(str(here.cookies.jar.__iter__().__next__().value))
    other = next(row.id_hash for row in _rows(database) if row.id_hash != mine)
    assert here.post("/account/logins/end", data={"login": other}).status_code == 303
    assert sorted(client.get("/").status_code for client in (here, there, third)) == [200, 200, 303]
    assert here.post("/account/logins/end-all").status_code == 303
    assert [client.get("/").status_code for client in (here, there, third)] == [303, 303, 303]


def test_the_login_of_another_cannot_be_ended(logged_in: LogIn, database: Database) -> None:
    admin, member = logged_in(Role.ADMIN), logged_in(Role.MEMBER)
    assert admin.get("/").status_code == 200
    of_admin = next(row.id_hash for row in _rows(database) if row.id_hash == _hash_of(admin))
    assert member.post("/account/logins/end", data={"login": of_admin}).status_code == 404
    assert admin.get("/").status_code == 200


def _hash_of(client: TestClient) -> str:
    return sessions.digest(str(next(iter(client.cookies.jar)).value))


@pytest.mark.parametrize("field", ["expires_at", "seen_at"])
def test_a_login_ends_after_a_month_and_after_a_week_of_silence(
    app: FastAPI, logged_in: LogIn, database: Database, field: str
) -> None:
    client = logged_in(Role.MEMBER)
    assert client.get("/").status_code == 200
    with database.write() as session:
        row = session.exec(select(LoginSession)).one()
        setattr(row, field, time.time() - (1 if field == "expires_at" else sessions.IDLE_SECONDS + 1))
    app.state.identities.forget()
    assert client.get("/").status_code == 303


def test_what_the_command_changes_is_noticed_soon(
    logged_in: LogIn, users: dict[Role, User], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command writes to the same database from another process."""
    monkeypatch.setattr(identities, "REMEMBERED_SECONDS", 0.0)
    client = logged_in(Role.MEMBER)
    assert client.post("/queue/pause").status_code == 303

    def demote(session: Session) -> None:
        set_role(session, session.get_one(User, users[Role.MEMBER].key), Role.VIEWER)

    with database.write() as session:
        demote(session)
    assert client.post("/queue/pause").status_code == 403


def test_last_seen_is_kept_up(app: FastAPI, logged_in: LogIn, database: Database) -> None:
    client = logged_in(Role.MEMBER)
    with database.write() as session:
        session.exec(select(LoginSession)).one().seen_at = time.time() - 3600
    assert client.get("/").status_code == 200
    assert time.time() - _rows(database)[0].seen_at < 60


def test_logins_are_in_the_audit_log(app: FastAPI, users: dict[Role, User], database: Database) -> None:
    client = browse(app)
    _log_in(client, password="wrong password")
    _log_in(client)
    client.post("/logout")
    assert _entries(database) == [("member", "failed_login"), ("member", "log_in"), ("member", "log_out")]
