"""Every route of the API asks for the token, before anything else is done."""

from __future__ import annotations

import json
import socket
from collections import defaultdict
from typing import Any

from fastapi.testclient import TestClient

from app.core.settings import Settings
from tests.api.conftest import Shown
from tests.live_server import serve_thread

OPEN = {("/api/v1/health", "get")}


def _routes(client: TestClient) -> list[tuple[str, str]]:
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    return [(path, method) for path, methods in paths.items() for method in methods]


def _filled(path: str) -> str:
    known = {"kind": "adapter", "reference": "small", "path": "a.json", "name": "hf_token"}
    return path.format_map(defaultdict(lambda: "1", known))


def test_every_route_but_health_needs_the_token(client: TestClient, refused: Shown) -> None:
    routes = _routes(client)
    assert len(routes) >= 19
    del client.headers["authorization"]
    for path, method in routes:
        response = client.request(method, _filled(path), headers={"Sec-Fetch-Site": "same-origin"})
        if (path, method) in OPEN:
            assert response.status_code == 200
        else:
            error = refused(response, 401, "unauthorized")
            assert "Authorization: Bearer" in error["advice"]
            assert response.headers["www-authenticate"] == "Bearer"
            if method == "GET":  # HEAD is in no document
                assert client.head(_filled(path)).status_code in (401, 405)


def test_every_route_under_the_prefix_is_in_the_openapi_document(client: TestClient) -> None:
    """What the walk above walks is all that there is."""
    from app.api.router import router

    def walk(routes: list[Any], prefix: str) -> set[str]:
        found: set[str] = set()
        for route in routes:
            inner = getattr(route, "original_router", None)
            context = getattr(route, "include_context", None)
            if inner is not None:
                found |= walk(inner.routes, prefix + (getattr(context, "prefix", "") or ""))
            else:
                found.add(prefix + route.path.replace(":path}", "}"))
        return found

    walked = walk(router.routes, "")
    assert {path for path, _ in _routes(client)} == {
        path if path.startswith("/api") else f"/api/v1{path}" for path in walked
    }


def test_other_values_are_refused(client: TestClient, refused: Shown) -> None:
    token = client.headers["authorization"].removeprefix("Bearer ")
    near = (f"Basic {token}", token, f"Bearer {token}x", f"Bearer Bearer {token}", f"Bearer {token[:-1]}")
    for value in ("", "Bearer", "Bearer ", "Bearer wrong", *near):
        refused(client.get("/api/v1/jobs", headers={"Authorization": value}), 401)


def test_a_token_of_odd_bytes_is_refused_not_an_error(client: TestClient, refused: Shown) -> None:
    refused(client.get("/api/v1/jobs", headers={"Authorization": b"Bearer \xff\xfe"}), 401)


def test_the_scheme_is_taken_in_any_case(client: TestClient) -> None:
    token = client.headers["authorization"].removeprefix("Bearer ")
    assert client.get("/api/v1/jobs", headers={"Authorization": f"bearer  {token} "}).status_code == 200


def test_a_token_in_the_query_is_no_token(client: TestClient, refused: Shown) -> None:
    token = client.headers.pop("authorization").removeprefix("Bearer ")
    refused(client.get("/api/v1/jobs", params={"token": token, "access_token": token}), 401)


def test_an_upload_without_the_token_is_refused_unread(settings: Settings) -> None:
    """Its body never comes: an answer shows that nobody waited for it."""
    request = (
        b"POST /api/v1/datasets HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer wrong\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000000\r\n\r\n--x\r\n"
    )
    with serve_thread(settings) as server:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(request)
            answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 401")
    assert json.loads(answer.partition("\r\n\r\n")[2] or "{}").get("error", {}).get("code") in ("unauthorized", None)
