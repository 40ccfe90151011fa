"""Front-end files: refused start without them, caching, compression, no way out of the folder."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from app.web.assets import VENDOR_FILES, Assets, AssetsMissing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("app.css", *VENDOR_FILES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"/* {name} */" * 50)
    (tmp_path / "vendor" / ".fetched").write_text("stamp")
    return tmp_path


@pytest.fixture
def client(folder: Path) -> TestClient:
    assets = Assets(folder)
    return TestClient(Starlette(routes=[Route("/static/{name:path}", assets.serve)]))


def test_start_without_vendor_files_says_which_and_what_to_run(folder: Path) -> None:
    (folder / "vendor" / "htmx.min.js").unlink()
    with pytest.raises(AssetsMissing, match=r"assets missing: vendor/htmx\.min\.js .* run `make assets`"):
        Assets(folder)


def test_url_changes_with_the_content_of_any_file_alone(folder: Path) -> None:
    before = Assets(folder).url("app.css")
    assert Assets(folder).url("app.css") == before
    (folder / "vendor" / "htmx.min.js").write_text(
        "changed"
    )  # a module that another one imports must be asked for anew
    assert Assets(folder).url("app.css") != before


def test_modules_find_each_other_beside_them(folder: Path, client: TestClient) -> None:
    near = Assets(folder).url("app.css").replace("app.css", "vendor/htmx.min.js")
    assert client.get(near).headers["cache-control"] == "public, max-age=31536000, immutable"


def test_hashed_url_is_cached_for_good_and_a_stale_or_bare_one_is_not(folder: Path, client: TestClient) -> None:
    url = Assets(folder).url("app.css")
    assert client.get(url).headers["cache-control"] == "public, max-age=31536000, immutable"
    assert client.get("/static/~stale/app.css").headers["cache-control"] == "no-cache"
    assert client.get("/static/app.css").headers["cache-control"] == "no-cache"


def test_body_is_gzipped_where_the_client_takes_it(folder: Path, client: TestClient) -> None:
    body = (folder / "app.css").read_bytes()
    packed = client.get("/static/app.css", headers={"accept-encoding": "gzip"})
    plain = client.get("/static/app.css", headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) == len(gzip.compress(body, mtime=0)) < len(body)
    assert packed.content == plain.content == body
    assert "content-encoding" not in plain.headers
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert plain.headers["content-type"] == "text/css; charset=utf-8"


def test_matching_etag_gets_304(client: TestClient) -> None:
    etag = client.get("/static/app.css").headers["etag"]
    assert client.get("/static/app.css", headers={"if-none-match": etag}).status_code == 304


@pytest.mark.parametrize(
    "name", ["../secret", "%2e%2e/secret", "..%5csecret", "vendor/.fetched", "/etc/passwd", "", "x%00"]
)
def test_only_listed_files_are_served(folder: Path, client: TestClient, name: str) -> None:
    (folder.parent / "secret").write_text("no")
    assert client.get(f"/static/{name}").status_code == 404


def test_our_own_comments_stay_at_home_and_licences_do_not(tmp_path: Path) -> None:
    for name in VENDOR_FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("/* a licence */\n")
    (tmp_path / "app.js").write_text('// why\n/** what\n * it does */\nconst a = "// no comment"; // beside\n')
    assets = Assets(tmp_path)
    assert assets._assets["app.js"].body == b'const a = "// no comment"; // beside\n'
    assert assets._assets[VENDOR_FILES[0]].body == b"/* a licence */\n"
