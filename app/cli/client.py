"""Talks to a running dashboard: the one on this box by its server.json, another by LORADECK_URL and LORADECK_TOKEN."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import httpx

from app.core.errors import AppError, Conflict, Fault, InvalidInput, NotFound
from app.core.paths import DataFolder
from app.core.settings import Settings

_TIMEOUT = httpx.Timeout(30.0, read=300.0)
_STREAM_TIMEOUT = httpx.Timeout(30.0, read=None)


class NotRunning(AppError):
    """No dashboard is running here."""

    code = "not_running"


class RequestFailed(AppError):
    """The dashboard refused the request."""

    code: ClassVar[str] = "request_failed"

    def __init__(self, message: str, *, advice: str | None = None, status: int = 0) -> None:
        super().__init__(message, advice=advice)
        self.status = status  # of the answer


class Client:
    """The JSON API as plain calls. Raises: NotRunning, InvalidInput, NotFound, Conflict, RequestFailed."""

    def __init__(self, settings: Settings | None = None) -> None:
        url, token = _find_server(settings or Settings.load())
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=_TIMEOUT, trust_env=False)

    def get(self, path: str, **params: Any) -> Any:
        """The JSON answer; parameters that are None are left out."""
        return self._send("GET", path, params=_present(params)).json()

    def get_bytes(self, path: str, offset: int = 0) -> bytes:
        """The answer as it is, from a byte offset on."""
        return self._send("GET", path, params={"offset": offset}).content

    def post(self, path: str, body: dict[str, Any] | None = None, **options: Any) -> Any:
        """Send JSON (or, by `files` and `data`, a form) and return the JSON answer."""
        return self._send("POST", path, json=body, **options).json()

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """Send JSON and return the JSON answer."""
        return self._send("PATCH", path, json=body).json()

    def put(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send JSON and return the JSON answer."""
        return self._send("PUT", path, json=body).json()

    def delete(self, path: str, **params: Any) -> Any:
        """Delete what is there; the JSON answer, where there is one."""
        response = self._send("DELETE", path, params=_present(params))
        return response.json() if response.content else None

    @contextmanager
    def stream(
        self, path: str, headers: Mapping[str, str] | None = None, passing: Collection[int] = (), **params: Any
    ) -> Iterator[httpx.Response]:
        """An answer that is read as it comes; errors among the statuses `passing` are left to the caller."""
        asked: dict[str, Any] = {"params": _present(params), "headers": headers, "timeout": _STREAM_TIMEOUT}
        try:
            with self._http.stream("GET", path, **asked) as response:
                if response.is_error:
                    response.read()
                yield response if response.status_code in passing else _checked(response)
        except httpx.TransportError as error:
            raise NotRunning(f"The connection to {self._http.base_url} broke: {error}") from error

    def events(self, **params: Any) -> Iterator[dict[str, Any]]:
        """Events of the live stream, heartbeats left out."""
        with self.stream("/events", **params) as response:
            kind = ""
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                kind = value if name == "event" else kind
                if name == "data" and kind != "heartbeat":
                    yield json.loads(value)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        return _checked(self._request(method, path, **options))

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise NotRunning(
                f"The dashboard at {self._http.base_url} does not answer: {error}",
                advice="Start it with `loradeck serve`, or set LORADECK_URL and LORADECK_TOKEN.",
            ) from error


def _find_server(settings: Settings) -> tuple[str, str]:
    """Raises: NotRunning, InvalidInput."""
    if settings.url is not None:
        return _check_elsewhere(settings.url.strip(), settings.token)
    path = DataFolder(settings.home).server_json
    if not path.is_file():
        raise NotRunning(
            f"No dashboard runs on {settings.home}.",
            advice="Start it with `loradeck serve`, or set LORADECK_HOME, or LORADECK_URL and LORADECK_TOKEN.",
        )
    server = json.loads(path.read_text(encoding="utf-8"))
    return server["url"], server["token"]


def _check_elsewhere(url: str, token: str | None) -> tuple[str, str]:
    """Address and token of a dashboard elsewhere, as they were set. Raises: InvalidInput with every fault."""
    faults = []
    if not _is_address(url):
        advice = "Write it as http://box.lan:8000, or unset it to use the dashboard of this machine's data folder."
        faults.append(Fault("LORADECK_URL", f"{url!r} is not the address of a dashboard", advice))
    if not token or not token.isascii() or not token.isprintable():
        wrong = "is not a token: it holds characters that no token has" if token else "is missing or empty"
        advice = "A dashboard's token is in server.json in its data folder; LORADECK_URL needs it too."
        faults.append(Fault("LORADECK_TOKEN", wrong, advice))
    if faults or token is None:
        raise InvalidInput(faults)
    return url.rstrip("/"), token


def _is_address(url: str) -> bool:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host) and not parsed.query and not parsed.fragment


def _present(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _checked(response: httpx.Response) -> httpx.Response:
    if not response.is_error:
        return response
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        told = f"The dashboard answered {response.status_code}: {response.text[:300]}"
        raise RequestFailed(told, status=response.status_code) from None
    if response.status_code in (413, 422) or "field" in error:
        faults = error.get("faults") or [{"field": "", **error}]
        raise InvalidInput([Fault(f["field"], f["message"], f.get("advice")) for f in faults])
    if "possible" in error:
        raise Conflict(**{name: error.get(name) for name in ("message", "advice", "state", "possible")})
    if response.status_code == 404:
        raise NotFound(error["message"], advice=error.get("advice"))
    raise RequestFailed(error["message"], advice=error.get("advice"), status=response.status_code)
