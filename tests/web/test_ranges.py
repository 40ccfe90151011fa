"""Ranges of one answer: which bytes, under which condition, and how a request for many is refused."""

from __future__ import annotations

import random
import re
import time

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.testclient import TestClient

from app.web.ranges import Content, content_disposition, send

BODY = bytes(range(256)) * 4
ETAG = "0f" * 32


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()

    @app.api_route("/api/content", methods=["GET", "HEAD"])
    def answer(request: Request) -> Response:
        return send(request, Content("c.bin", len(BODY), ETAG, lambda start, stop: iter((BODY[start:stop],))))

    return TestClient(app)


def test_the_whole_says_that_it_can_be_resumed(client: TestClient) -> None:
    response = client.get("/api/content")
    assert (response.status_code, response.content) == (200, BODY)
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["etag"] == f'"{ETAG}"'
    assert response.headers["content-length"] == str(len(BODY))


def test_head_tells_the_same_and_sends_nothing(client: TestClient) -> None:
    whole, head = client.get("/api/content"), client.head("/api/content")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == whole.headers
    ranged = client.head("/api/content", headers={"Range": "bytes=0-9"})  # a range is one of GET alone
    assert (ranged.status_code, ranged.headers) == (200, whole.headers)


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("0-0", 0, 1),
        ("10-19", 10, 20),
        ("1000-", 1000, 1024),
        ("-24", 1000, 1024),
        ("-9999", 0, 1024),
        ("5-99999", 5, 1024),
    ],
)
def test_a_range_is_sent_with_its_place(client: TestClient, asked: str, start: int, stop: int) -> None:
    response = client.get("/api/content", headers={"Range": f"bytes={asked}"})
    assert (response.status_code, response.content) == (206, BODY[start:stop])
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/1024"
    assert response.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize(
    "asked", ["1024-", "2000-3000", "9-5", "-", "-0", "a-b", "0-1,5-6", "0-" + "9" * 30, "", "0x1-"]
)
def test_what_is_no_range_of_it_is_refused(client: TestClient, asked: str) -> None:
    response = client.get("/api/content", headers={"Range": f"bytes={asked}"})
    assert response.status_code == 416
    assert response.headers["content-range"] == "bytes */1024"
    assert response.json()["error"]["code"] == "bad_range"


def test_another_unit_is_passed_over(client: TestClient) -> None:
    assert client.get("/api/content", headers={"Range": "lines=1-2"}).status_code == 200


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (f'"{ETAG}"', 206),
        ('"another"', 200),
        (f'W/"{ETAG}"', 200),
        (ETAG, 200),
        ("Mon, 30 Nov 2026 10:00:00 GMT", 200),
        ("", 200),
    ],
)
def test_a_range_is_sent_only_of_the_bytes_that_the_reader_has(client: TestClient, condition: str, status: int) -> None:
    response = client.get("/api/content", headers={"Range": "bytes=1000-", "If-Range": condition})
    assert response.status_code == status
    assert response.content == (BODY[1000:] if status == 206 else BODY)


def test_who_has_it_all_is_told_so(client: TestClient) -> None:
    for known in (f'"{ETAG}"', f'"x", W/"{ETAG}"', "*"):
        response = client.get("/api/content", headers={"If-None-Match": known})
        assert (response.status_code, response.content) == (304, b"")
    assert client.get("/api/content", headers={"If-None-Match": '"x"'}).status_code == 200


def test_cve_2025_62727_ten_thousand_ranges_are_refused_at_once(client: TestClient) -> None:
    many = "bytes=" + ",".join(f"{n}-{n + 1}" for n in range(10_000))
    hostile = "bytes=" + "0-" * 5000 + "x" + " " * 20_000
    client.get("/api/content")  # the first request of a client takes longer
    for header in (many, hostile):
        begin = time.monotonic()
        response = client.get("/api/content", headers={"Range": header})
        assert response.status_code == 416
        assert time.monotonic() - begin < 0.5  # measured: 3 ms; a busy machine is no quadratic search


@pytest.mark.parametrize(
    "name",
    ['a"\r\nX-Injected: 1', "größe ☃.bin", "../../etc/passwd", "a;b=c", 'quote"', "back\\slash", "\udcff", "x" * 500],
)
def test_a_name_stays_within_its_header(name: str) -> None:
    header = content_disposition(name)
    header.encode("latin-1")
    assert re.fullmatch(
        r"""attachment; filename="[A-Za-z0-9 ._()+=@-]*"(; filename\*=UTF-8''[A-Za-z0-9%._~-]*)?""", header
    )


def test_names_come_back_whole() -> None:
    assert content_disposition("model.safetensors") == 'attachment; filename="model.safetensors"'
    assert "filename*=UTF-8''gr%C3%B6%C3%9Fe.bin" in content_disposition("größe.bin")


def test_ranges_put_together_are_the_whole(client: TestClient) -> None:
    chance, at, body = random.Random(7), 0, b""
    while at < len(BODY):
        stop = min(len(BODY), at + chance.randint(1, 200))
        body += client.get("/api/content", headers={"Range": f"bytes={at}-{stop - 1}", "If-Range": f'"{ETAG}"'}).content
        at = stop
    assert body == BODY
