"""One POST to the receiver: no redirect, no proxy, to an address that was looked at; and what is known afterwards."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from app.core.errors import InvalidInput
from app.core.notices.addresses import AddressRefused, resolve

_SECONDS = 10.0
_READ_BYTES = 4096
_TOLD = 200  # characters of an answer
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Outcome:
    """`again`: it cannot have arrived, and may the next time."""

    delivered: bool
    again: bool
    message: str


def deliver(url: str, payload: Any, named: Collection[str]) -> Outcome:
    """Send JSON. What went wrong is told in words, without the address: it is a secret."""
    parts = read_url(url)
    body = json.dumps(payload).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "loradeck"}
    try:
        connection = _connect(parts, named)
    except AddressRefused as error:
        return Outcome(False, False, error.message)
    except OSError as error:
        return Outcome(False, True, f"{parts.hostname} cannot be reached: {_reason(error)}")
    with contextlib.closing(connection):
        try:
            connection.request("POST", _target(parts), body, headers)
            answer = connection.getresponse()
            text = answer.read(_READ_BYTES).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            message = (
                f"{parts.hostname} did not answer ({_reason(error)}); it may have arrived, so it is not sent again"
            )
            return Outcome(False, False, message)
    return _judge(str(parts.hostname), answer.status, text)


def read_url(url: str) -> SplitResult:
    """Raises: InvalidInput on `url` for what is no address of a receiver."""
    try:
        parts = urlsplit(url.strip())
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        raise InvalidInput("is not a valid address", field="url") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_right:
        raise InvalidInput("must begin with https:// or http:// and name a host", field="url")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput("must not hold a user or a password; use a token in the path or the query", field="url")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput("holds characters that no address has", field="url")
    return parts


def _connect(parts: SplitResult, named: Collection[str]) -> http.client.HTTPConnection:
    """To an address that was looked at; the name is not resolved again. Raises: AddressRefused, OSError."""
    host = str(parts.hostname)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    opened = _open_first(list(_addresses(host, port, named)), port)
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    try:
        connection.sock = _secured(opened, host) if parts.scheme == "https" else opened
    except OSError:
        opened.close()
        raise
    return connection


def _addresses(host: str, port: int, named: Collection[str]) -> Iterator[tuple[socket.AddressFamily, str]]:
    yield from dict.fromkeys(resolve(host, port, named))


def _open_first(addresses: list[tuple[socket.AddressFamily, str]], port: int) -> socket.socket:
    """The first that answers. Raises: OSError of the last."""
    for index, (family, address) in enumerate(addresses):
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.settimeout(_SECONDS)
        try:
            opened.connect((address, port))
        except OSError:
            opened.close()
            if index == len(addresses) - 1:
                raise
        else:
            return opened
    raise OSError("the name has no address")


def _secured(opened: socket.socket, host: str) -> ssl.SSLSocket:
    return ssl.create_default_context().wrap_socket(opened, server_hostname=host)


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _judge(host: str, status: int, text: str) -> Outcome:
    if 200 <= status < 300:
        return Outcome(True, False, f"{host} answered {status}")
    if 300 <= status < 400:
        return Outcome(False, False, f"{host} answered {status}: redirects are not followed; give the final address")
    told = " ".join(text.split())[:_TOLD]
    return Outcome(False, status in _LATER, f"{host} answered {status}{f': {told}' if told else ''}")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_SECONDS:.0f} s"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
