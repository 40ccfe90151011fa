"""A model hub on the loopback device: as much of its HTTP as a snapshot download needs."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c0ffee" * 6 + "c0ff"


class Hub:
    """Serves folders as repositories: `repositories["owner/name"] = folder`. Keeps the paths that were asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.downloads: list[str] = []
        self.url = ""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a request path."""
        match = re.match(r"(/api/models)?/([^/]+/[^/]+)(/.*)", path.partition("?")[0])
        if match is None or match[2] not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if match[2] in self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        folder = self.repositories[match[2]]
        return self._api(match[2], folder, match[3]) if match[1] else self._file(folder, match[3])

    def _api(self, hub_id: str, folder: Path, rest: str) -> tuple[int, dict[str, str], bytes]:
        if rest.startswith("/tree/"):
            return 200, {}, json.dumps([_entry(folder, file) for file in folder.rglob("*") if file.is_file()]).encode()
        return 200, {}, json.dumps({"id": hub_id, "sha": COMMIT, "siblings": []}).encode()

    def _file(self, folder: Path, rest: str) -> tuple[int, dict[str, str], bytes]:
        name = rest.removeprefix(f"/resolve/{COMMIT}/")
        headers = {"X-Repo-Commit": COMMIT}
        if not (folder / name).is_file():
            return 404, {**headers, "X-Error-Code": "EntryNotFound"}, b""
        body = (folder / name).read_bytes()
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
                hub.downloads.append(self.path.rpartition("/")[2])
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
