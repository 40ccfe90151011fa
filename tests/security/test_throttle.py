"""Guessing and flooding at the login."""

from __future__ import annotations

import resource
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.core.accounts import passwords, throttle
from app.core.accounts.models import User
from app.core.accounts.roles import Role
from app.core.accounts.throttle import LoginThrottle, Throttle
from app.core.errors import TooManyRequests
from app.core.settings import Settings
from app.main import create_app
from tests.security.conftest import HOST, PASSWORD, LogIn, browse


def _try(client: TestClient, name: str, password: str = "wrong password", **headers: str) -> int:
    return client.post("/login", data={"name": name, "password": password}, headers=headers).status_code


def test_row_11_rotating_x_forwarded_for_is_no_way_around(app: FastAPI, users: dict[Role, User]) -> None:
    client = browse(app)
    statuses = [_try(client, f"user{n}", **{"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(20)]
    assert statuses == [401] * 10 + [429] * 10
    blocked = client.post("/login", data={"name": "member", "password": PASSWORD})
    assert blocked.status_code == 429
    assert int(blocked.headers["retry-after"]) > 0


def test_row_11_a_trusted_proxy_is_believed(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"trusted_proxies": ["testclient"]}))
    with TestClient(app, base_url=f"http://{HOST}"):
        client = browse(app)
        statuses = [_try(client, f"user{n}", **{"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(12)]
        assert statuses == [401] * 12
        assert [_try(client, f"x{n}", **{"X-Forwarded-For": "10.0.0.99"}) for n in range(11)][-1] == 429


def test_guesses_for_one_name_are_counted_from_wherever_they_come() -> None:
    logins = LoginThrottle()
    for n in range(30):
        logins.count(f"10.0.1.{n}", "admin")
    with pytest.raises(TooManyRequests):
        logins.count("10.0.2.1", " ADMIN ")
    logins.count("10.0.2.1", "member")


def test_an_ipv6_host_has_one_slate_for_its_network() -> None:
    logins = LoginThrottle()
    for n in range(10):
        logins.count(f"2001:db8::{n:x}", f"user{n}")
    with pytest.raises(TooManyRequests):
        logins.count("2001:db8::ffff", "somebody")
    logins.count("2001:db8:0:1::1", "somebody")


def test_a_login_that_works_wipes_the_slate(app: FastAPI, users: dict[Role, User]) -> None:
    client = browse(app)
    for _ in range(3):
        assert [_try(client, "member") for _ in range(5)] == [401] * 5
        assert _try(client, "member", PASSWORD) == 303
        client.cookies.clear()


def test_the_slate_is_bounded_and_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Throttle(1)
    for n in range(throttle._MOST_KEYS + 50):
        counter.count(str(n))
    assert len(counter._tries) == throttle._MOST_KEYS
    with pytest.raises(TooManyRequests):
        counter.count(str(throttle._MOST_KEYS))
    monkeypatch.setattr(throttle, "WINDOW_SECONDS", 0.0)
    counter.count(str(throttle._MOST_KEYS))


def test_row_12_a_hundred_logins_with_a_megabyte_each_cost_nothing(app: FastAPI, users: dict[Role, User]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ThreadPoolExecutor(100) as pool:
        statuses = list(pool.map(lambda n: _try(browse(app), f"user{n}", "x" * 2**20), range(100)))
    assert set(statuses) <= {400, 429}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 * 1024, f"{grown} KiB for 100 clients, whose own bodies are 200 MB of it"


def test_row_12_passwords_are_checked_two_at_a_time_and_few_wait(
    app: FastAPI, users: dict[Role, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state, "login_throttle", LoginThrottle())
    monkeypatch.setattr(app.state.login_throttle, "_by_peer", Throttle(1000))
    at_once, most = [0], [0]
    verify = passwords._hasher().verify

    def slow(password: str, stored: str) -> bool:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        try:
            return verify(password, stored)
        finally:
            at_once[0] -= 1

    monkeypatch.setattr(passwords._hasher(), "verify", slow)
    with ThreadPoolExecutor(100) as pool:
        statuses = list(pool.map(lambda n: _try(browse(app), f"user{n}", "wrong password"), range(100)))
    assert set(statuses) <= {401, 429}
    assert 1 <= most[0] <= 2


@pytest.mark.parametrize("length", [passwords.MAX_LENGTH + 1, 60_000])
def test_a_password_of_absurd_length_gets_400(app: FastAPI, users: dict[Role, User], length: int) -> None:
    assert _try(browse(app), "member", "x" * length) == 400


def test_a_body_without_a_length_is_cut_off_too(app: FastAPI) -> None:
    def chunks() -> object:
        yield from (b"password=" + b"x" * 2**16,) * 40

    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert browse(app).post("/login", content=chunks(), headers=headers).status_code in (400, 413)  # type: ignore[arg-type]


def test_guesses_of_the_old_password_are_counted_too(app: FastAPI, logged_in: LogIn) -> None:
    """Else who sits at an open browser, or has its cookie, tries as many as the machine checks."""
    member = logged_in(Role.MEMBER)

    def change(current: str) -> int:
        data = {"current": current, "password": "another horse battery"}
        return member.post("/account/password", data=data).status_code

    assert [change(f"wrong {number}") for number in range(10)] == [422] * 10
    assert change("wrong once more") == 429
    assert change(PASSWORD) == 429


def test_the_first_check_of_a_process_takes_as_long_for_an_unknown_user() -> None:
    """What stands in for an unknown user's hash is made by whatever check comes first."""
    passwords._nobodys.cache_clear()
    assert passwords.verify_password(PASSWORD, passwords.hash_password(PASSWORD))
    assert passwords._nobodys.cache_info().currsize == 1
