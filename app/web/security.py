"""The guard in front of every route: which hosts are answered, which origins may change things, and strict headers.

Plain ASGI, so that streams pass through untouched.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.error_page import HEADINGS

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Referrer-Policy is not `no-referrer`: under it browsers send `Origin: null` with our own forms.
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=(), browsing-topics=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_CACHING = (b"cache-control", b"private, no-cache")
# Whoever is refused here may be a stranger: the page tells nothing, and loads nothing.
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{status} · Loradeck</title></head>
<body><main><h1>{status}: {heading}</h1><p>{message}</p><p><a href="/">Open the dashboard</a></p></main></body>
</html>
"""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://(?P<host>[^/?#@\s]+)")


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    code: str
    message: str


class HostPolicy:
    """The host names that are ours. A foreign name here means DNS rebinding or a misconfigured proxy.

    Who is in the same network can give out any `.local` name. A browser sends no cookie of ours to it; where none is
    needed (`any_local` is False), only this machine's own such name is answered.
    """

    def __init__(self, bind_host: str, allowed_hosts: Iterable[str] = (), *, any_local: bool = True) -> None:
        hostname = socket.gethostname().lower()
        ours = {"localhost", bind_host.lower(), hostname, f"{hostname.partition('.')[0]}.local"}
        self._names = ours | {name.lower() for name in allowed_hosts}
        self._suffixes = (".localhost", ".local") if any_local else (".localhost",)
        self._any_address = bind_host in {"0.0.0.0", "::"}

    def allows(self, host: str) -> bool:
        """Whether a Host header names us: loopback, the bind address, our name, `.local`, or a configured name."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].strip("[]").lower()
        return name in self._names or name.endswith(self._suffixes) or self._allows_address(name)

    def _allows_address(self, name: str) -> bool:
        """Loopback; any address where we are bound to all of them, since rebinding needs a name."""
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._any_address


class SecurityMiddleware:
    """Refuses foreign hosts (400) and cross-site changes (403) before anything else runs; adds SECURITY_HEADERS."""

    def __init__(
        self, app: ASGIApp, bind_host: str, allowed_hosts: Iterable[str] = (), *, any_local: bool = True
    ) -> None:
        self._app = app
        self._hosts = HostPolicy(bind_host, allowed_hosts, any_local=any_local)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the dashboard has none, and the door asks for roles over HTTP alone
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _with_security_headers(message.get("headers", ()))
            await send(message)

        refusal = self._find_refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await _send_refusal(refusal, scope["path"], send_with_headers)

    def _find_refusal(self, scope: Scope) -> _Refusal | None:
        hosts = _get_headers(scope, b"host")
        if len(hosts) != 1 or not self._hosts.allows(hosts[0]):
            return _Refusal(
                400,
                "bad_host",
                "This host name is not one of this dashboard's. If it should be, add it to LORADECK_ALLOWED_HOSTS.",
            )
        if not scope["path"].startswith("/"):
            return _Refusal(400, "bad_request", "The request target must be a path.")
        if scope["method"] not in _SAFE_METHODS and not _is_same_site(scope, hosts[0]):
            return _Refusal(
                403,
                "cross_site",
                "This change was not sent from the dashboard's own pages. Open the dashboard and try again there; "
                "a script sends its API token instead.",
            )
        return None


def _is_same_site(scope: Scope, host: str) -> bool:
    """Whether our own page, or a client with a token and no cookie, sent this request.

    Each of Sec-Fetch-Site and Origin must agree where it is sent; where neither is, only a token will do.
    """
    sites = _get_headers(scope, b"sec-fetch-site")
    origins = _get_headers(scope, b"origin")
    if not sites and not origins:
        return _has_only_token(scope)
    return all(site in {"same-origin", "none"} for site in sites) and all(
        (match := _ORIGIN.fullmatch(origin)) is not None and match["host"].lower() == host.lower() for origin in origins
    )


def _has_only_token(scope: Scope) -> bool:
    tokens = _get_headers(scope, b"authorization")
    return len(tokens) == 1 and tokens[0].lower().startswith("bearer ") and not _get_headers(scope, b"cookie")


def _get_headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _with_security_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The response's headers, ours in place of any of the same name; no shared cache keeps what does not say so."""
    ours = {name for name, _ in SECURITY_HEADERS}
    theirs = [(name, value) for name, value in headers if name.lower() not in ours]
    caching = [] if any(name.lower() == _CACHING[0] for name, _ in theirs) else [_CACHING]
    return [*theirs, *SECURITY_HEADERS, *caching]


async def _send_refusal(refusal: _Refusal, path: str, send: Send) -> None:
    if path.startswith("/api/"):
        content_type = b"application/json"
        body = json.dumps({"error": {"code": refusal.code, "message": refusal.message}}).encode()
    else:
        page = _PAGE.format(status=refusal.status, heading=HEADINGS[refusal.status], message=refusal.message)
        content_type, body = b"text/html; charset=utf-8", page.encode()
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
