"""A hub on the loopback device: as much of its HTTP as downloads of models and datasets need."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

COMMIT = "c0ffee" * 6 + "c0ff"
_URL = re.compile(r"(?:/api/(?P<api>models|datasets))?/(?P<datasets>datasets/)?(?P<id>[^/]+/[^/]+)(?P<rest>/.*)?")

Answer = tuple[int, dict[str, str], bytes]


class Hub:
    """Serves folders as repositories. Keeps the names of the files that were downloaded.

    `repositories["owner/name"] = folder` is a model; `datasets["owner/name"] = {commit: folder, …}` is a dataset whose
    last commit is its branch main.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.datasets: dict[str, dict[str, Path]] = {}
        self.branches: dict[str, str] = {}  # others than main, of any dataset
        self.gated: set[str] = set()
        self.downloads: list[str] = []
        self.on_download: Callable[[str], None] = lambda _name: None
        self.url = ""

    def answer(self, path: str) -> Answer:
        """Status, headers and body for a request path."""
        match = _URL.fullmatch(path.partition("?")[0])
        commits = self._commits(match) if match else {}
        if match is None or not commits:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if match["id"] in self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        rest = match["rest"] or ""
        return self._api(match["id"], commits, rest) if match["api"] else self._file(commits, rest)

    def _commits(self, match: re.Match[str]) -> Mapping[str, Path]:
        if match["api"] == "datasets" or match["datasets"]:
            return self.datasets.get(match["id"], {})
        return {COMMIT: self.repositories[match["id"]]} if match["id"] in self.repositories else {}

    def _api(self, hub_id: str, commits: Mapping[str, Path], rest: str) -> Answer:
        revision = unquote(re.sub(r"^/(revision|tree)/?|/$", "", rest)) or "main"
        commit = list(commits)[-1] if revision == "main" else self.branches.get(revision, revision)
        if commit not in commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        folder = commits[commit]
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        if rest.startswith("/tree/"):
            return 200, {}, json.dumps([_entry(folder, file) for file in files]).encode()
        siblings = [{"rfilename": str(file.relative_to(folder)), "size": file.stat().st_size} for file in files]
        return 200, {}, json.dumps({"id": hub_id, "sha": commit, "siblings": siblings}).encode()

    def _file(self, commits: Mapping[str, Path], rest: str) -> Answer:
        commit, _, name = rest.removeprefix("/resolve/").partition("/")
        headers = {"X-Repo-Commit": commit}
        if commit not in commits or not (commits[commit] / unquote(name)).is_file():
            return 404, {**headers, "X-Error-Code": "EntryNotFound"}, b""
        body = (commits[commit] / unquote(name)).read_bytes()
        return 200, {**headers, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'}, body


def _entry(folder: Path, file: Path) -> dict[str, Any]:
    body = file.read_bytes()
    path = str(file.relative_to(folder))
    return {"type": "file", "path": path, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Run a hub on a free port of 127.0.0.1."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._reply(with_body=False)

        def do_GET(self) -> None:
            if "/resolve/" in self.path:
                name = self.path.rpartition("/")[2]
                hub.downloads.append(name)
                hub.on_download(name)
            self._reply(with_body=True)

        def _reply(self, *, with_body: bool) -> None:
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, with an empty cache, for this process and its children."""
    from huggingface_hub import constants

    with serve_hub() as hub:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        yield hub
