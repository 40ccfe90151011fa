"""Streams as plain sockets: many at once, and readers that do as they please."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from tests.live_server import Served


def open_raw(server: Served, query: str = "", *headers: str, version: str = "1.1", buffer: int = 0) -> socket.socket:
    """Ask for the stream; `buffer`: bytes that this side takes unread, so that little is enough to stall the other."""
    address = urlsplit(server.url)
    connection = socket.socket()
    if buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(20)
    connection.connect((address.hostname or "", address.port or 0))
    lines = [f"GET /api/v1/events{query} HTTP/{version}", "Host: 127.0.0.1", f"Authorization: Bearer {server.token}"]
    connection.sendall("\r\n".join([*lines, *headers, "", ""]).encode())
    return connection


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """What comes up to `end`, or to the stream's end."""
    received, looked = bytearray(), 0
    while received.find(end, looked) < 0:
        looked = max(0, len(received) - len(end))
        more = connection.recv(1 << 18)
        if not more:
            break
        received += more
    return bytes(received)


@contextmanager
def many(server: Served, count: int, query: str = "", buffer: int = 0) -> Iterator[list[socket.socket]]:
    """So many streams, closed at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(open_raw(server, query, buffer=buffer)) for _ in range(count)]
