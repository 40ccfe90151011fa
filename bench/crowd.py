"""A thousand readers of one job's stream in one process: plain sockets, each message told apart by its bytes once.

`python -m bench.crowd PORT TOKEN JOB AFTER COUNT` prints `connected` when all were greeted, reads until its standard
input ends, then prints one JSON document: the ids that came, how many each reader has, whether all readers have the
same ones in the same order, and the milliseconds that each metric and progress took from the spool to each socket once
all were connected.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from array import array
from dataclasses import dataclass, field
from typing import Any

_EVENT = re.compile(rb"^data: (\{.+\})\r?$", re.MULTILINE)
_FROM_THE_SPOOL = ("metric", "progress")  # their time is that of their writing; other kinds' is that of something else
_KEPT_PARSES = 256
_READ_BYTES = 16 * 1024  # a larger buffer is made anew by the kernel each time

Parsed = list[tuple[int, float | None]]  # ids, with the time at which the child wrote them


@dataclass(slots=True)
class Reader:
    """One connection, and which events came over it."""

    socket: socket.socket
    rest: bytes = b""
    greeted: bool = False
    ids: array[int] = field(default_factory=lambda: array("q"))


class Crowd:
    """Connects and reads."""

    def __init__(self, port: int, token: str, job: int, after: int) -> None:
        self._address = ("127.0.0.1", port)
        self._request = (
            f"GET /api/v1/events?job={job}&after={after} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {token}\r\n\r\n"
        ).encode()
        self._epoll = select.epoll()
        self._parsed: dict[bytes, Parsed] = {}
        self.readers: dict[int, Reader] = {}
        self.latencies_ms = array("f")
        self.greeted = 0
        self._complete_at = float("inf")

    def connect(self, count: int) -> None:
        """Open so many streams and wait until each was greeted."""
        for _ in range(count):
            connection = socket.create_connection(self._address)
            connection.sendall(self._request)
            connection.setblocking(False)
            self.readers[connection.fileno()] = Reader(connection)
            self._epoll.register(connection, select.EPOLLIN)
            self.read_on(0)
        while self.greeted < count:
            self.read_on(1)
        self._complete_at = time.time()

    def read_on(self, timeout_seconds: float) -> None:
        """Take what has come. Raises: SystemExit where a stream ended."""
        for descriptor, _ in self._epoll.poll(timeout_seconds):
            self._read(self.readers[descriptor])

    def read_until_input_ends(self) -> None:
        """Nothing is ever written to the standard input; its end tells that the time is over."""
        self._epoll.register(sys.stdin, select.EPOLLIN)
        while True:
            ready = self._epoll.poll()
            for descriptor, _ in ready:
                if descriptor != sys.stdin.fileno():
                    self._read(self.readers[descriptor])
            if sys.stdin.fileno() in dict(ready):
                return

    def _read(self, reader: Reader) -> None:
        received = reader.socket.recv(_READ_BYTES)
        now = time.time()
        if not received:
            raise SystemExit("A stream ended.")
        whole, end, reader.rest = (reader.rest + received).rpartition(b"\n\n")
        if not reader.greeted and b"event: heartbeat" in whole:
            reader.greeted = True
            self.greeted += 1
        for event_id, written_at in self._parse(whole + end):
            reader.ids.append(event_id)
            if written_at is not None and written_at > self._complete_at:
                self.latencies_ms.append((now - written_at) * 1000)

    def _parse(self, text: bytes) -> Parsed:
        if text not in self._parsed:
            if len(self._parsed) >= _KEPT_PARSES:
                self._parsed.clear()
            events = [json.loads(data) for data in _EVENT.findall(text)]
            self._parsed[text] = [_place(event) for event in events if event]
        return self._parsed[text]

    def report(self) -> dict[str, Any]:
        """The ids of the reader that has most of them; whether all others' are their beginning; how long they took."""
        longest = max((reader.ids for reader in self.readers.values()), key=len)
        return {
            "ids": list(longest),
            "counts": sorted({len(reader.ids) for reader in self.readers.values()}),
            "alike": all(longest[: len(reader.ids)] == reader.ids for reader in self.readers.values()),
            "latencies_ms": self.latencies_ms.tolist(),
        }


def _place(event: dict[str, Any]) -> tuple[int, float | None]:
    return event["id"], event["time"] if event["kind"] in _FROM_THE_SPOOL else None


def main() -> None:
    port, token, job, after, count = sys.argv[1:]
    crowd = Crowd(int(port), token, int(job), int(after))
    crowd.connect(int(count))
    print("connected", flush=True)
    crowd.read_until_input_ends()
    print(json.dumps(crowd.report()))


if __name__ == "__main__":
    main()
