"""Cut one reader's stream at random bytes, again and again, while events are written and the dashboard restarts.

`python -m bench.stream_cuts [--cuts 1000] [--seed 1] [--restarts 5]`: a real dashboard on a fresh data folder. The
reader resumes by `Last-Event-ID` behind the last message that it has whole, as a browser does; some of its connections
take nothing for a while first. The dashboard is killed (SIGKILL) and started again in mid-stream. Prints what was seen
and one JSON line; exits with 1 where an event is missing, comes twice or is out of order.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from app.core.database import Database
from app.core.events import log
from app.core.events.types import EventKind
from app.core.paths import DataFolder
from app.core.settings import Settings
from bench.startup_memory import free_port, get, running

BYTES_TO_A_CUT = 3000  # on average: some events' worth
DEADLINE_SECONDS = 60.0
IDLE_SECONDS = 1.0
_ID = re.compile(rb"^id: (\d+)$", re.MULTILINE)


class CutReader:
    """Reads one stream over many connections. `ids` is what arrived whole, in the order of arrival."""

    def __init__(self, port: int, token: str, seed: int) -> None:
        self._address, self._token = ("127.0.0.1", port), token
        self._random = random.Random(seed)
        self.ids: list[int] = []
        self.cuts = 0

    def read_part(self, size: int | None = None) -> None:
        """One connection, cut after so many bytes: between two messages, within one, or before the first."""
        size = int(self._random.expovariate(1 / BYTES_TO_A_CUT)) + 1 if size is None else size
        try:
            connection = socket.create_connection(self._address, timeout=DEADLINE_SECONDS)
        except ConnectionRefusedError:  # it is being started again
            time.sleep(0.05)
            return
        with connection:
            self._read(connection, size)
            self.cuts += 1

    def read_until(self, cuts: int) -> None:
        """Go on until so many cuts were made in all."""
        while self.cuts < cuts:
            self.read_part()

    def _read(self, connection: socket.socket, size: int) -> None:
        connection.sendall(self._request())
        if self._random.random() < 0.02:
            time.sleep(0.3)
        received = b""
        connection.settimeout(IDLE_SECONDS)
        # Reset: the dashboard was killed. Timeout: nothing more is to come. What came before counts.
        with suppress(ConnectionResetError, TimeoutError):
            while len(received) < size and (more := connection.recv(size - len(received))):
                received += more
        whole, _, _ = received.rpartition(b"\n\n")
        self.ids += [int(number) for number in _ID.findall(whole)]

    def _request(self) -> bytes:
        resume = f"Last-Event-ID: {self.ids[-1]}\r\n" if self.ids else ""
        head = f"GET /api/v1/events?after=0 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._token}\r\n"
        return f"{head}{resume}\r\n".encode()


@contextmanager
def writing(database: Database, seed: int) -> Iterator[None]:
    """Events of several jobs and sizes, in transactions of one to ten."""
    stop = threading.Event()

    def write() -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            with database.write() as session:
                for _ in range(chance.randint(1, 10)):
                    lines = ["x\n\nid: 7" * chance.randint(0, 100)]
                    log.append(session, EventKind.LOG, {"lines": lines}, job_id=chance.randint(1, 3))
            stop.wait(chance.uniform(0, 0.02))

    writer = threading.Thread(target=write, name="writer")
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


@contextmanager
def serving(home: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A dashboard that answers."""
    with running(home, "serve", "--no-worker", "--port", str(port)) as process:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while get(port, "/api/v1/health") != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((home / "bench.log").read_text()[-3000:])
            time.sleep(0.02)
        yield process


def read_to_the_end(reader: CutReader, database: Database) -> list[int]:
    """Go on until the log's last event has come. Returns the ids that the log holds."""
    with database.read() as session:
        logged = [event.key for event in log.read_after(session, 0, limit=10**7)]
    deadline = time.monotonic() + DEADLINE_SECONDS
    while reader.ids[-1:] != logged[-1:] and time.monotonic() < deadline:
        reader.read_part(size=1 << 20)
    return logged


def run(home: Path, cuts: int, seed: int, restarts: int) -> dict[str, int]:
    """A dashboard that dies `restarts` times while the reader goes on."""
    port, database = free_port(), Database(Settings(home=home).effective_database_url)
    with ExitStack() as stack:
        stack.callback(database.engine.dispose)
        server = stack.enter_context(serving(home, port))
        reader = CutReader(port, json.loads(DataFolder(home).server_json.read_text())["token"], seed)
        with writing(database, seed):
            for part in range(1, restarts + 1):
                reader.read_until(part * cuts // (restarts + 1))
                server.kill()
                reader.read_part()
                server.wait()
                server = stack.enter_context(serving(home, port))
            reader.read_until(cuts)
        logged = read_to_the_end(reader, database)
    return {
        "cuts": cuts,
        "restarts": restarts,
        "events": len(logged),
        "missing": len(set(logged) - set(reader.ids)),
        "twice": len(reader.ids) - len(set(reader.ids)),
        "out_of_order": int(reader.ids != sorted(reader.ids)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="A stream that is cut at random bytes.")
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--restarts", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loradeck-bench-") as home:
        seen = run(Path(home), arguments.cuts, arguments.seed, arguments.restarts)
    print("  ".join(f"{name} {count}" for name, count in seen.items()))
    print(json.dumps({"benchmark": "stream_cuts", "seed": arguments.seed, **seen}))
    if seen["missing"] or seen["twice"] or seen["out_of_order"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
