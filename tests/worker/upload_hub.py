"""A hub on the loopback device that takes uploads: as much of its HTTP as its client needs, and it keeps what came.

Large files come by the LFS protocol (batch, one PUT or several parts, verify), small ones within the commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

WRITER = "hf_" + "W" * 30 + "rite"  # of the account `me`, which may write for `team`, too
READER = "hf_" + "R" * 30 + "read"
_LARGE_BYTES = 2000
_REPO = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)(?:/(?P<what>preupload|commit|tree|revision)/(?P<rest>[^/]+))?")
_BATCH = re.compile(r"/(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
_OBJECT = re.compile(r"/lfs/(?P<oid>[0-9a-f]{64})(?:/(?P<part>\d+|complete|verify))?")

Answer = tuple[int, dict[str, str], Any]


@dataclass
class Repo:
    """A repository: its visibility, and its commits, each as {path: content}."""

    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b"*.safetensors filter=lfs\n"}])
    large: set[str] = field(default_factory=set)

    def commit_id(self, number: int) -> str:
        return hashlib.sha1(f"{id(self)} {number}".encode()).hexdigest()

    @property
    def head(self) -> str:
        return self.commit_id(len(self.commits) - 1)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]


class Refusal(Exception):
    """The hub refuses a request."""

    def __init__(self, status: int, message: str = "", code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class UploadHub:
    """What it was sent; `before` is called with method and path of each request and may refuse it."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: set[str] = set()
        self.part_bytes: int | None = None  # of LFS uploads in several parts; None: one PUT
        self.cut_after: int | None = None  # bytes of a PUT, then the connection ends
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        self.on_bytes: Callable[[int], None] = lambda _count: None
        self.url = ""

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> Answer:
        """Status, headers and body. Raises: Refusal."""
        if match := _OBJECT.fullmatch(path):
            return self._object(match["oid"], match["part"], method, body)
        self._authorize(token)
        if path == "/api/repos/create":
            return self._create(json.loads(body), token)
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if match := _BATCH.fullmatch(path):
            self._writable(match["id"], token)
            return 200, {}, self._batch(json.loads(body))
        match = _REPO.fullmatch(path)
        if match is None:
            raise Refusal(404, f"no such address: {method} {path}")
        return self._repo(match["id"], match["what"], unquote(match["rest"] or ""), token, body)

    def _authorize(self, token: str | None) -> None:
        if token not in (WRITER, READER):
            raise Refusal(401, "Invalid credentials in Authorization header")
        self.tokens.add(token)

    def _writable(self, repo_id: str, token: str | None) -> Repo:
        if repo_id not in self.repos:
            raise Refusal(404, "Repository not found", "RepoNotFound")
        if token != WRITER or repo_id.partition("/")[0] not in ("me", "team"):
            raise Refusal(403, "you do not have write permissions")
        return self.repos[repo_id]

    def _create(self, asked: dict[str, Any], token: str | None) -> Answer:
        repo_id = f"{asked['organization']}/{asked['name']}"
        if repo_id in self.repos:
            raise Refusal(409, "You already created this model repo")
        if token != WRITER or asked["organization"] not in ("me", "team"):
            raise Refusal(
                403, f"You don't have the rights to create a model under the namespace {asked['organization']}"
            )
        self.repos[repo_id] = Repo(private=asked.get("visibility") == "private")
        return 200, {}, {"url": f"{self.url}/{repo_id}", "name": repo_id}

    def _validate(self, card: str) -> Answer:
        """The hub refuses a card whose base model is no model's id."""
        base = re.search(r"^base_model: (.*)$", card, re.MULTILINE)
        if base and not re.fullmatch(r"[\w.-]+/[\w.-]+", base[1]):
            errors = [{"message": f'"base_model" with value "{base[1]}" is not valid.'}]
            return 400, {}, {"errors": errors, "warnings": []}
        return 200, {}, {"errors": [], "warnings": []}

    def _batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"transfer": "basic", "objects": [self._action(each["oid"], each["size"]) for each in asked["objects"]]}

    def _action(self, oid: str, size: int) -> dict[str, Any]:
        place = f"{self.url}/lfs/{oid}"
        if oid in self.objects:
            return {"oid": oid, "size": size}
        upload: dict[str, Any] = {"href": f"{place}?X-Amz-Signature=signed"}
        if self.part_bytes is not None:
            numbers = range(1, -(-size // self.part_bytes) + 1)
            parts = {str(number): f"{place}/{number}?X-Amz-Signature=signed" for number in numbers}
            upload = {"href": f"{place}/complete", "header": {"chunk_size": str(self.part_bytes), **parts}}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": {"href": f"{place}/verify"}}}

    def _object(self, oid: str, part: str | None, method: str, body: bytes) -> Answer:
        if method == "PUT" and part is None:
            self._store(oid, body)
        elif method == "PUT" and part is not None:
            self.parts.setdefault(oid, {})[int(part)] = body
            return 200, {"ETag": hashlib.md5(body).hexdigest()}, b""
        elif part == "complete":
            parts = self.parts.pop(oid)
            told = {each["partNumber"]: each["etag"] for each in json.loads(body)["parts"]}
            assert told == {number: hashlib.md5(piece).hexdigest() for number, piece in parts.items()}
            self._store(oid, b"".join(parts[number] for number in sorted(parts)))
        elif oid not in self.objects or len(self.objects[oid]) != json.loads(body)["size"]:
            raise Refusal(404, "there is no such object")
        return 200, {}, {}

    def _store(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400, "the content does not have this hash")
        self.objects[oid] = body

    def _repo(self, repo_id: str, what: str | None, rest: str, token: str | None, body: bytes) -> Answer:
        repo = self.repos.get(repo_id)
        mine = repo_id.partition("/")[0] in ("me", "team")
        if repo is None or (repo.private and not mine):
            raise Refusal(404, "Repository not found", "RepoNotFound")
        if what in ("preupload", "commit"):
            self._writable(repo_id, token)
        if what == "preupload":
            return 200, {}, {"files": [self._mode(each) for each in json.loads(body)["files"]]}
        if what == "commit":
            return self._commit(repo_id, repo, [json.loads(line) for line in body.splitlines()])
        if what == "tree":
            number = [repo.commit_id(each) for each in range(len(repo.commits))].index(rest)
            return 200, {}, [_entry(repo, *file) for file in repo.commits[number].items()]
        siblings = [{"rfilename": path} for path in repo.files]
        return 200, {}, {"id": repo_id, "sha": repo.head, "private": repo.private, "siblings": siblings}

    @staticmethod
    def _mode(file: dict[str, Any]) -> dict[str, Any]:
        large = file["size"] >= _LARGE_BYTES or file["path"].endswith((".safetensors", ".gguf"))
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _commit(self, repo_id: str, repo: Repo, lines: list[dict[str, Any]]) -> Answer:
        files = dict(repo.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
                repo.large.add(value["path"])
        repo.commits.append(files)
        url = f"{self.url}/{repo_id}/commit/{repo.head}"
        return 200, {}, {"commitUrl": url, "commitOid": repo.head, "success": True}


def _entry(repo: Repo, path: str, content: bytes) -> dict[str, Any]:
    git_id = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_id}
    if path in repo.large:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


class _Server(ThreadingHTTPServer):
    def __init__(self, hub: UploadHub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        hub, path = self.server.hub, urlsplit(self.path).path
        hub.requests.append((self.command, path))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        try:
            body = self._read_body(hub)
            hub.before(self.command, path)
            status, headers, content = hub.answer(self.command, path, token, body)
        except Refusal as refusal:
            status, content = refusal.status, {"error": refusal.message}
            headers = {"X-Error-Message": refusal.message, "X-Error-Code": refusal.code}
        except ConnectionError:
            self.close_connection = True
            return
        self._send(status, headers, content if isinstance(content, bytes) else json.dumps(content).encode())

    do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server calls

    def _read_body(self, hub: UploadHub) -> bytes:
        left, pieces = int(self.headers.get("Content-Length") or 0), []
        while left:
            piece = self.rfile.read(min(left, 16_384))
            if not piece:
                raise ConnectionError
            pieces.append(piece)
            left -= len(piece)
            if self.command == "PUT":
                hub.on_bytes(len(piece))
                if hub.cut_after is not None and sum(map(len, pieces)) >= hub.cut_after:
                    raise ConnectionError
        return b"".join(pieces)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def serve_upload_hub() -> Iterator[UploadHub]:
    """Run it on a free port of 127.0.0.1."""
    hub = UploadHub()
    server = _Server(hub)
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
def upload_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    """A hub on this machine for this process, with a token that may write; the client does not wait between tries."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    with serve_upload_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
        monkeypatch.setattr(_http.time, "sleep", lambda _seconds: None)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield hub
