"""Read server-sent events as a browser does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.live_server import Served

_LINE_END = re.compile(r"\r\n|\n|\r")
READ_SECONDS = 20.0  # longer than the pause between two heartbeats


@dataclass(frozen=True, slots=True)
class Message:
    """One dispatched message."""

    event: str
    id: str | None
    data: Any


@contextmanager
def open_stream(server: Served, headers: dict[str, str] | None = None, **params: Any) -> Iterator[Iterator[Message]]:
    """Messages of `/api/v1/events`; the first is the greeting. Raises: httpx.ReadTimeout where nothing comes."""
    all_headers = {**server.headers, **(headers or {})}
    url = f"{server.url}/api/v1/events"
    with httpx.stream(
        "GET", url, params=params, headers=all_headers, timeout=READ_SECONDS, trust_env=False
    ) as response:
        assert response.status_code == 200
        yield parse(response.iter_text())


def parse(chunks: Iterator[str]) -> Iterator[Message]:
    """The messages of a stream, by the rules of the HTML standard."""
    pending = ""
    for chunk in chunks:
        *blocks, pending = re.split(r"(?:\r\n|\n|\r){2}", pending + chunk)
        yield from (_message(block) for block in blocks)


def _message(block: str) -> Message:
    fields: dict[str, list[str]] = {}
    for line in _LINE_END.split(block):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    event_id = fields["id"][-1] if "id" in fields else None
    return Message(fields["event"][-1], event_id, json.loads("\n".join(fields["data"])))


def take(messages: Iterator[Message], count: int) -> list[Message]:
    """So many events, heartbeats left out. They keep a stream open, so the time is watched too."""
    events: list[Message] = []
    deadline = time.monotonic() + READ_SECONDS
    while len(events) < count:
        message = next(messages)
        assert time.monotonic() < deadline, f"{count} events were expected, {len(events)} came"
        if message.event != "heartbeat":
            events.append(message)
    return events


def ids(messages: list[Message]) -> list[int]:
    """Their ids as numbers."""
    return [int(message.id or 0) for message in messages]
