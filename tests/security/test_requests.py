"""Where a request comes from: hosts, origins, content types, and what a failure gives away."""

from __future__ import annotations

import logging
import socket

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.core.accounts.models import User
from app.core.accounts.roles import Role
from app.core.settings import Settings
from app.web.redirects import local_path
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
