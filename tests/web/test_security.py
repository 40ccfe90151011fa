"""The guard in front of every route, on a real Starlette application."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.web.security import CONTENT_SECURITY_POLICY, HostPolicy, SecurityMiddleware

HOST = "127.0.0.1:8000"
UNSAFE = ["POST", "PUT", "PATCH", "DELETE"]


def _respond(request: Request) -> Response:
    return PlainTextResponse(f"ran {request.method}", headers={"Content-Security-Policy": "default-src *"})


def _stream(_: Request) -> Response:
    def chunks() -> Iterator[str]:
        yield "id: 1\n\n"
        yield "id: 2\n\n"

    return StreamingResponse(chunks(), media_type="text/event-stream")


@pytest.fixture
def client() -> TestClient:
    methods = ["GET", *UNSAFE]
    routes = [
        Route("/page", _respond, methods=methods),
        Route("/api/v1/jobs", _respond, methods=methods),
        Route("/events", _stream),
    ]
    middleware = [Middleware(SecurityMiddleware, bind_host="127.0.0.1", allowed_hosts=["box.lan"])]
    return TestClient(Starlette(routes=routes, middleware=middleware), base_url=f"http://{HOST}")


@pytest.mark.parametrize(
    "host",
    [
        "localhost:8000",
        "LOCALHOST",
        "127.0.0.1",
        "127.8.0.1:1",
        "[::1]:8000",
        "box.lan:80",
        "gpu.local",
        "app.localhost",
    ],
)
def test_our_own_host_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/page", headers={"host": host}).text == "ran GET"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", *UNSAFE])
@pytest.mark.parametrize("host", ["evil.test", "192.168.1.9", "127.0.0.1.evil.test", "box.lan.evil.test"])
def test_dns_rebinding_host_gets_400(client: TestClient, method: str, host: str) -> None:
    headers = {"host": host, "cookie": "session=valid", "sec-fetch-site": "same-origin"}
    response = client.request(method, "/page", headers=headers)
    assert response.status_code == 400
    assert "ran" not in response.text


@pytest.mark.parametrize(
    "host", ["a/?x=", "127.0.0.1/?x=", "127.0.0.1@evil.test", "127.0.0.1:8000:9", "", "127.0.0.1 ", "[::1"]
)
def test_malformed_host_gets_400(client: TestClient, host: str) -> None:
    assert client.get("/page", headers={"host": host}).status_code == 400


def test_two_host_headers_get_400(client: TestClient) -> None:
    assert client.get("/page", headers=[("host", HOST), ("host", "localhost")]).status_code == 400


def test_addresses_are_ours_only_where_we_are_bound_to_all_of_them() -> None:
    assert HostPolicy("0.0.0.0").allows("192.168.1.9:8000")
    assert HostPolicy("192.168.1.9").allows("192.168.1.9:8000")
    assert not HostPolicy("127.0.0.1").allows("192.168.1.9:8000")
    assert not HostPolicy("0.0.0.0").allows("evil.test")


def test_bad_host_message_names_the_setting(client: TestClient) -> None:
    assert "LORADECK_ALLOWED_HOSTS" in client.get("/page", headers={"host": "evil.test"}).text
    error = client.get("/api/v1/jobs", headers={"host": "evil.test"}).json()["error"]
    assert error["code"] == "bad_host"
    assert "LORADECK_ALLOWED_HOSTS" in error["message"]


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"origin": f"http://{HOST}"},
        {"origin": f"https://{HOST}", "sec-fetch-site": "same-origin"},
        {"authorization": "Bearer token"},
    ],
)
def test_own_pages_and_tokens_may_change_things(client: TestClient, method: str, headers: dict[str, str]) -> None:
    assert client.request(method, "/page", headers=headers).text == f"ran {method}"


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.test"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://127.0.0.1"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": f"http://{HOST}/path"},
        {"origin": f"ftp://{HOST}"},
        {"origin": f"http://{HOST}@evil.test"},
        {"origin": "null", "sec-fetch-site": "same-origin"},
        {"origin": f"http://{HOST}", "sec-fetch-site": "cross-site"},
        {"origin": "http://evil.test", "authorization": "Bearer token"},
        {"authorization": "Bearer token", "cookie": "session=valid"},
        {"authorization": "Basic token"},
        {"cookie": "session=valid"},
        {},
    ],
)
def test_cross_site_change_gets_403(client: TestClient, method: str, headers: dict[str, str]) -> None:
    for path in ("/page", "/api/v1/jobs"):
        response = client.request(method, path, headers=headers)
        assert response.status_code == 403
        assert "ran" not in response.text
    assert response.json()["error"]["code"] == "cross_site"


def test_reading_needs_no_origin(client: TestClient) -> None:
    assert client.get("/page", headers={"sec-fetch-site": "cross-site"}).status_code == 200


@pytest.mark.parametrize(("path", "status"), [("/page", 200), ("/nowhere", 404), ("/events", 200)])
def test_every_answer_carries_the_strict_headers_once(client: TestClient, path: str, status: int) -> None:
    response = client.get(path)
    assert response.status_code == status
    assert response.headers.get_list("content-security-policy") == [CONTENT_SECURITY_POLICY]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "same-origin"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in response.headers["permissions-policy"]


def test_refusals_carry_the_strict_headers_too(client: TestClient) -> None:
    assert (
        client.get("/page", headers={"host": "evil.test"}).headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    )


def test_policy_allows_no_inline_and_no_foreign_source() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'")


async def _collect(path: str, **scope: object) -> list[dict[str, object]]:
    sent: list[dict[str, object]] = []

    async def inner(_scope: object, _receive: object, send: object) -> None:
        for message in (
            {"type": "http.response.start", "status": 200, "headers": []},
            {"type": "http.response.body", "body": b"a", "more_body": True},
        ):
            await send(message)  # type: ignore[operator]
            passed.append(len(sent))

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    passed: list[int] = []
    guard = SecurityMiddleware(inner, bind_host="127.0.0.1")  # type: ignore[arg-type]
    base = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")]}
    await guard({**base, **scope}, None, send)  # type: ignore[arg-type]
    assert passed in ([1, 2], [])
    return sent


def test_stream_chunks_pass_at_once() -> None:
    assert len(asyncio.run(_collect("/events"))) == 2


def test_absolute_request_target_gets_400() -> None:
    assert asyncio.run(_collect("http://evil.test/page"))[0]["status"] == 400
