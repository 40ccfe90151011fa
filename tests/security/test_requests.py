"""Where a request comes from: hosts, origins, content types, and what a failure gives away."""

from __future__ import annotations

import logging
import socket

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.core.accounts.models import User
from app.core.accounts.roles import Role
from app.core.settings import Settings
from app.main import create_app
from app.web.redirects import local_path
from app.web.security import SECURITY_HEADERS
from tests.live_server import serve_thread
from tests.security.conftest import HOST, PASSWORD, LogIn, browse

CHANGING = ["POST", "PUT", "PATCH", "DELETE"]
SECRET = "canary-9f31c0"


def _with_cookie(app: FastAPI, client: TestClient, **headers: str) -> TestClient:
    """The same login, without what a browser's own page sends."""
    bare = TestClient(app, base_url=f"http://{HOST}", headers=headers, follow_redirects=False)
    bare.cookies = client.cookies
    return bare


def test_row_02_a_host_with_a_path_is_refused_starlette_cve_2026_48710(app: FastAPI, bearer: TestClient) -> None:
    for host in ("a/?x=", f"{HOST}/api/v1/health?", f"{HOST}#", f"{HOST}\\x"):
        assert bearer.get("/api/v1/jobs", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1/api/v1/health", "http://evil.test/", "//evil.test/jobs", "/static/../jobs", "/%2e%2e/jobs"],
)
def test_row_02_no_request_target_is_a_way_round_the_door(settings: Settings, target: str) -> None:
    """Sent as it stands, by a socket. What is asked after is judged by the path alone."""
    with serve_thread(settings) as server:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection((HOST, port), timeout=10) as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            status = connection.makefile("rb").readline().split()[1]
    assert status in (b"400", b"401", b"303", b"404")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", *CHANGING])
def test_row_03_dns_rebinding_ray_cve_2025_62593(logged_in: LogIn, method: str) -> None:
    admin = logged_in(Role.ADMIN)
    for path in ("/", "/queue/pause", "/api/v1/jobs"):
        assert admin.request(method, path, headers={"Host": "evil.test"}).status_code == 400


@pytest.mark.parametrize("method", CHANGING)
def test_row_04_no_verb_is_forgotten_ray_cve_2026_27482(logged_in: LogIn, method: str) -> None:
    admin = logged_in(Role.ADMIN)
    foreign = {"Origin": "http://evil.test", "Sec-Fetch-Site": "cross-site"}
    for path in ("/queue/pause", "/api/v1/jobs", "/logout", "/users"):
        assert admin.request(method, path, headers=foreign).status_code == 403
    assert admin.get("/").status_code == 200


@pytest.mark.parametrize("origin", ["null", "", "http://", "http://[::", "://", "http://a b", "http://127.0.0.1:x"])
def test_row_05_a_null_or_broken_origin_is_refused_comfyui_cve_2026_56674(
    app: FastAPI, logged_in: LogIn, origin: str
) -> None:
    """Also Gradio CVE-2024-47165."""
    client = _with_cookie(app, logged_in(Role.ADMIN))
    assert client.post("/queue/pause", headers={"Origin": origin}).status_code == 403


def test_row_06_without_sec_fetch_the_origin_decides(app: FastAPI, logged_in: LogIn, bearer: TestClient) -> None:
    client = _with_cookie(app, logged_in(Role.ADMIN))
    assert client.post("/queue/pause", headers={"Origin": f"http://{HOST}:9999"}).status_code == 403
    assert client.post("/queue/pause").status_code == 403, "neither header, but a cookie"
    assert client.post("/queue/pause", headers={"Origin": f"http://{HOST}"}).status_code == 303
    assert bearer.post("/api/v1/queue/resume").status_code == 200, "neither header, a token, no cookie"
    client.headers["Authorization"] = bearer.headers["authorization"]
    assert client.post("/api/v1/queue/resume").status_code == 403, "a token beside a cookie"


def test_row_07_json_as_text_is_not_read_fastapi_cve_2021_32677(logged_in: LogIn, bearer: TestClient) -> None:
    body = b'{"path": "owner/name"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        for client in (logged_in(Role.ADMIN), bearer):
            response = client.post("/api/v1/models", content=body, headers={"Content-Type": kind})
            assert response.status_code in (415, 422)
    assert bearer.get("/api/v1/models").json() == [] or all(
        m["name"] != "name" for m in bearer.get("/api/v1/models").json()
    )


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.test",
        "/\\evil.test",
        "\t//evil.test",
        "/\t/evil.test",
        "\\\\evil.test",
        "http://evil.test",
        "javascript:1",
        "/\n/evil.test",
        "///evil.test",
        "",
        "evil.test",
        "/\r\nSet-Cookie: a=b",
        "/jobs\\..\\evil",
        "http:/evil.test",
    ],
)
def test_row_10_next_leads_to_a_page_of_ours_jupyter_cve_2023_39968(
    app: FastAPI, users: dict[Role, User], wanted: str
) -> None:
    assert local_path(wanted) == "/"
    response = browse(app).post("/login", data={"name": "member", "password": PASSWORD, "next": wanted})
    assert response.headers["location"] == "/"
    assert "a=b" not in str(response.headers)


@pytest.mark.parametrize("wanted", ["/", "/jobs", "/jobs?q=a&status=failed", "/jobs/7#log", "/datasets/1/xray?row=2"])
def test_a_page_of_ours_is_kept(wanted: str) -> None:
    assert local_path(wanted) == wanted


def test_row_14_a_failure_gives_no_secret_away_jupyter_cve_2022_24757(
    app: FastAPI, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.system.gpu.latest_reading", lambda _: 1 / 0)
    admin = logged_in(Role.ADMIN)
    cookie = next(iter(admin.cookies.jar)).value
    quiet = TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False, cookies=admin.cookies)
    told = []
    with caplog.at_level(logging.DEBUG):
        told.append(quiet.get("/gpu", headers={"X-Key": SECRET}))
        token = {"Authorization": f"Bearer {app.state.token}"}
        told.append(
            TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False).get("/gpu", headers=token)
        )
    assert [response.status_code for response in told] == [500, 500]
    everything = caplog.text + "".join(response.text + str(response.headers) for response in told)
    assert "ZeroDivisionError" in caplog.text
    assert "ZeroDivisionError" not in told[0].text
    for secret in (SECRET, str(cookie), app.state.token):
        assert secret not in everything


def test_a_failure_s_page_has_the_strict_headers_too(app: FastAPI, logged_in: LogIn) -> None:
    """It is made outside of the middleware that adds them."""
    admin = logged_in(Role.ADMIN)
    quiet = TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False, cookies=admin.cookies)
    app.state.tailer = None
    response = quiet.get("/events")
    assert response.status_code == 500
    for name, value in SECURITY_HEADERS:
        assert response.headers.get_list(name.decode()) == [value.decode()]


@pytest.mark.parametrize("header", ["Referer", "HX-Current-URL"])
@pytest.mark.parametrize(
    "address", ["http://[", "http://[x]/", "http://a]b/", "\\\\evil.test", f"http://{HOST}:99999/"]
)
def test_a_broken_address_in_a_header_breaks_nothing(
    anonymous: TestClient, logged_in: LogIn, header: str, address: str
) -> None:
    admin, sent = logged_in(Role.ADMIN), {header: address, "HX-Request": "true"}
    assert anonymous.post("/jobs/1/cancel", headers=sent).status_code == 401
    assert anonymous.get("/jobs", headers=sent).status_code == 401
    assert admin.post("/jobs/999999/cancel", headers=sent).status_code == 404
    assert admin.get("/jobs/999999", headers=sent).status_code == 404


def test_a_length_of_thousands_of_digits_is_refused(anonymous: TestClient) -> None:
    for digits in ("9" * 5000, "9" * 19, "1e9", "-1"):
        assert anonymous.post("/login", headers={"Content-Length": digits}).status_code in (400, 413), digits[:20]


def test_below_a_prefix_the_door_asks_for_the_same_roles(app: FastAPI, logged_in: LogIn) -> None:
    """A proxy's prefix (`root_path`) is part of the path, but of no route's."""
    viewer, member = logged_in(Role.VIEWER), logged_in(Role.MEMBER)
    for client, paths in ((viewer, ("/users", "/settings", "/jobs/new")), (member, ("/users", "/audit"))):
        below = TestClient(app, base_url=f"http://{HOST}", root_path="/deck", follow_redirects=False)
        below.cookies = client.cookies
        assert below.get("/deck/jobs").status_code == 200
        for path in paths:
            assert below.get(f"/deck{path}").status_code == 403, path
    stranger = TestClient(app, base_url=f"http://{HOST}", root_path="/deck", follow_redirects=False)
    assert stranger.get("/deck/jobs").headers["location"] == "/deck/login?next=/deck/jobs"


def test_a_websocket_is_closed_whoever_asks(app: FastAPI, logged_in: LogIn) -> None:
    """The policy's table is of HTTP: a socket that is added one day stays closed until that says who may use it."""
    reached = []

    async def talk(socket: WebSocket) -> None:
        reached.append(socket)
        await socket.accept()

    app.router.routes.append(WebSocketRoute("/talk", talk))
    with pytest.raises(WebSocketDisconnect) as caught, logged_in(Role.ADMIN).websocket_connect("/talk"):
        pass
    assert caught.value.code == 1008
    assert reached == []


def test_no_shared_cache_keeps_what_somebody_may_see(logged_in: LogIn, anonymous: TestClient) -> None:
    viewer = logged_in(Role.VIEWER)
    for path in ("/", "/jobs", "/api/v1/jobs", "/nowhere"):
        assert viewer.get(path).headers["cache-control"] == "private, no-cache", path
    assert anonymous.get("/setup").headers["cache-control"] == "private, no-cache"


def test_without_accounts_no_name_of_the_network_is_answered_but_our_own(settings: Settings) -> None:
    """Rebinding by multicast DNS: whoever is in the same network answers for any `.local` name."""
    own = f"{socket.gethostname().partition('.')[0]}.local"
    for auth, expected in (("accounts", {"evil.local": 303, own: 303}), ("off", {"evil.local": 400, own: 200})):
        app = create_app(settings.model_copy(update={"auth": auth}))
        for host, status in expected.items():
            assert browse(app).get("/jobs", headers={"Host": host}).status_code == status, (auth, host)
