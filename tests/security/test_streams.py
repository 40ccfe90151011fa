"""Row 13: a live stream ends soon after its login or token does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import pytest

from app.core.accounts.models import User
from app.core.accounts.roles import Role, Scope
from app.core.accounts.sessions import end_sessions, start_session
from app.core.accounts.tokens import add_token, revoke_token
from app.core.accounts.users import add_user, remove_user, set_password
from app.core.database import Database
from app.core.settings import Settings
from app.web import logged_out
from tests.live_server import serve_thread
from tests.security.conftest import PASSWORD


def _log_out(database: Database, user: User) -> None:
    with database.write() as session:
        end_sessions(session, user.key)


def _new_password(database: Database, user: User) -> None:
    with database.write() as session:
        set_password(session, session.get_one(User, user.key), "another password")


def _remove(database: Database, user: User) -> None:
    with database.write() as session:
        remove_user(session, session.get_one(User, user.key))


def _read_to_the_end(url: str, headers: dict[str, str], begun: threading.Event, ended: threading.Event) -> None:
    with httpx.stream("GET", url, headers=headers, timeout=60) as response:
        assert response.status_code == 200
        for _ in response.iter_raw():
            begun.set()
    ended.set()


@pytest.mark.parametrize("end", [_log_out, _new_password, _remove])
def test_row_13_the_stream_of_an_ended_login_ends_and_others_go_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, end: Callable[[Database, User], None]
) -> None:
    """Here after a tenth of a second; outside of tests within five."""
    monkeypatch.setattr(logged_out, "LOOK_SECONDS", 0.1)
    with serve_thread(settings) as server:
        database = Database(settings.effective_database_url)
        with database.write() as session:
            users = [add_user(session, name, PASSWORD, Role.MEMBER) for name in ("goes", "stays")]
            cookies = [start_session(session, user, "", "") for user in users]
        ended = [threading.Event(), threading.Event()]
        for cookie, event in zip(cookies, ended, strict=True):
            _follow(f"{server.url}/events", {"Cookie": f"{server.cookie}={cookie}"}, event)
        end(database, users[0])
        assert ended[0].wait(20)
        time.sleep(0.5)
        assert not ended[1].is_set()
        _log_out(database, users[1])
        assert ended[1].wait(20)
        database.engine.dispose()


def test_row_13_the_stream_of_a_revoked_token_ends(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logged_out, "LOOK_SECONDS", 0.1)
    with serve_thread(settings) as server:
        database = Database(settings.effective_database_url)
        with database.write() as session:
            user = add_user(session, "script", PASSWORD, Role.MEMBER)
            token, secret = add_token(session, user, "ci", Scope.READ)
        ended = threading.Event()
        _follow(f"{server.url}/api/v1/events", {"Authorization": f"Bearer {secret}"}, ended)
        with database.write() as session:
            revoke_token(session, token.key)
        assert ended.wait(20)
        database.engine.dispose()


def test_the_wait_is_well_below_what_is_promised() -> None:
    assert logged_out.LOOK_SECONDS <= 10


def _follow(url: str, headers: dict[str, str], ended: threading.Event) -> None:
    begun = threading.Event()
    threading.Thread(target=_read_to_the_end, args=(url, headers, begun, ended), daemon=True).start()
    assert begun.wait(20)
