"""What a user does meanwhile, over HTTP: submit, merge, upload, download, and follow the stream."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

_PAUSE_SECONDS = 0.1
_PATIENCE_SECONDS = 60.0
_READ_SECONDS = 20.0  # heartbeats come every 15


class NoAnswer(Exception):
    """The web process did not answer in time."""


@dataclass(slots=True)
class Client:
    """Asks the web process, wherever it listens now, until it answers."""

    server_json: Path
    unsure: set[str] = field(default_factory=set)  # names of jobs whose submission was cut off: stored, or not

    def submit(self, spec: dict[str, Any], name: str) -> int | None:
        """The new job's id, or None where the connection broke behind the request."""
        return self._create("jobs", {"spec": spec, "name": name}, name)

    def merge(self, job_id: int) -> int | None:
        """As `submit`."""
        return self._create(f"jobs/{job_id}/merge", {"dtype": "fp32"}, f"merge of {job_id}")

    def _create(self, path: str, body: dict[str, Any], name: str) -> int | None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = self._post(path, body)
            except (httpx.ConnectError, FileNotFoundError):
                time.sleep(_PAUSE_SECONDS)
                continue
            except httpx.TransportError:
                self.unsure.add(name)
                return None
            if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
                return int(_checked(answer)["id"])
            time.sleep(_PAUSE_SECONDS)
        raise NoAnswer(f"POST {path} was not answered for {_PATIENCE_SECONDS:.0f} s.")

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        server = self.read_server()
        url = f"{server['url']}/api/v1/{path}"
        return httpx.post(url, json=body, headers=_bearer(server), timeout=_PATIENCE_SECONDS, trust_env=False)

    def begin_upload(self, name: str) -> socket.socket:
        """A dataset of which half is sent; the rest never comes. Raises: OSError where the server is not there."""
        head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}.jsonl"\r\n\r\n'
        half = (head + '{"text": "' + "x" * 200_000).encode()
        sent = self._open("POST", "datasets", "Content-Type: multipart/form-data; boundary=x", 2 * len(half))
        sent.sendall(half)
        return sent

    def begin_download(self, job_id: int, kind: str) -> socket.socket:
        """An artifact's zip of which the first bytes are read. Raises: OSError where the server is not there."""
        asked = self._open("GET", f"jobs/{job_id}/artifacts/{kind}", "Accept: */*", 0)
        asked.recv(64)
        return asked

    def _open(self, verb: str, path: str, header: str, length: int) -> socket.socket:
        server = self.read_server()
        place = urlsplit(server["url"])
        opened = socket.create_connection((place.hostname or "", place.port or 0), _READ_SECONDS)
        lines = (
            f"{verb} /api/v1/{path} HTTP/1.1", f"Host: {place.netloc}", f"Authorization: Bearer {server['token']}",
            header, f"Content-Length: {length}",
        )  # fmt: skip
        opened.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return opened

    def read_server(self) -> dict[str, str]:
        """{url, token}. Raises: FileNotFoundError where no server has left it."""
        server: dict[str, str] = json.loads(self.server_json.read_text(encoding="utf-8"))
        return server


class Follower(threading.Thread):
    """Reads the live stream as a page does: where it breaks it resumes behind the last event that it was given."""

    def __init__(self, client: Client) -> None:
        super().__init__(name="follower", daemon=True)
        self._client = client
        self._ended = threading.Event()
        self._pending: int | None = None
        self.ids: list[int] = []
        self.cuts = 0
        self.resets = 0

    def run(self) -> None:
        while not self._ended.is_set():
            with suppress(httpx.TransportError, FileNotFoundError):
                self._follow()
            self.cuts += 1
            self._ended.wait(_PAUSE_SECONDS)

    def stop(self) -> None:
        """End it, once the stream says something again or is cut."""
        self._ended.set()

    def _follow(self) -> None:
        self._pending = None
        server = self._client.read_server()
        headers = {**_bearer(server), **({"Last-Event-ID": str(self.ids[-1])} if self.ids else {})}
        url, params = f"{server['url']}/api/v1/events", {"after": 0}
        with httpx.stream(
            "GET", url, params=params, headers=headers, timeout=_READ_SECONDS, trust_env=False
        ) as response:
            for line in response.iter_lines():
                self._take(line)
                if self._ended.is_set():
                    return

    def _take(self, line: str) -> None:
        name, _, value = line.partition(": ")
        if name == "id":
            self._pending = int(value)
        elif line == "event: reset":
            self.resets += 1
        elif not line and self._pending is not None:  # only a blank line says that the event is whole
            self.ids.append(self._pending)
            self._pending = None


def _bearer(server: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {server['token']}"}


def _checked(answer: httpx.Response) -> dict[str, Any]:
    """Raises: RuntimeError with what the server said."""
    if answer.is_success:
        found: dict[str, Any] = answer.json()
        return found
    raise RuntimeError(f"{answer.request.url} answered {answer.status_code}: {answer.text}")
