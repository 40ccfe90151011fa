"""A zip of an artifact beside one plain file of the same bytes, from the same server: bytes per second, and memory.

`python -m bench.downloads` measures. With `--resume` a zip of holes of so many GB is fetched twice, once over a server
that is killed in the middle and started again, and the two are compared by SHA-256; nothing is stored.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from app.core.artifacts.manifest import META, list_file
from app.core.artifacts.store import record
from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue import enqueue
from app.core.jobs.status import JobKind
from app.core.paths import DataFolder
from tests.live_server import Served, serve_process

_FILES = 4
_PIECE = 1 << 20


def add_artifact(home: Path, sizes: list[int], *, holes: bool) -> Job:
    """A job with an adapter of files of these sizes: of random bytes, or of holes with a word every 100 MB."""
    folder, database = DataFolder(home), Database(f"sqlite:///{home / 'loradeck.db'}")
    with database.write() as session:
        job = enqueue(session, Job(name="bench", kind=JobKind.TRAIN, created_at=time.time()))
        place = folder.job(job.key) / "adapter"
        place.mkdir(parents=True)
        for number, size in enumerate(sizes):
            _fill(place / f"part-{number}.bin", size, holes)
        listed = [list_file(place, path) for path in sorted(place.iterdir())]
        (place / META).write_text(json.dumps({"files": listed}))
        record(session, folder, job.key, None, {"kind": "adapter", "path": "adapter"})
    database.engine.dispose()
    return job


def _fill(path: Path, size: int, holes: bool) -> None:
    chance = random.Random(path.name)
    with path.open("wb") as file:
        file.truncate(size)
        for start in range(0, size, 100_000_000 if holes else _PIECE):
            file.seek(start)
            file.write(chance.randbytes(min(100 if holes else _PIECE, size - start)))


def drain(served: Served, path: str) -> float:
    """Read an answer to its end without looking at it; MB per second."""
    host, port = served.url.removeprefix("http://").split(":")
    fields = {"Host": f"{host}:{port}", "Authorization": f"Bearer {served.token}", "Connection": "close"}
    head = f"GET {path} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields.items()) + "\r\n"
    buffer, total, begin = bytearray(_PIECE), 0, time.perf_counter()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode())
        while count := connection.recv_into(buffer):
            total += count
    return total / 1e6 / (time.perf_counter() - begin)


def measure(megabytes: int, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as scratch, serve_process(Path(scratch) / "home") as served:
        size = megabytes * 10**6
        parts = add_artifact(served.home, [size // _FILES] * _FILES, holes=False)
        plain = add_artifact(served.home, [size], holes=False)
        ways = {
            "one plain file": f"/api/v1/jobs/{plain.id}/artifacts/adapter/files/part-0.bin",
            "zip": f"/api/v1/jobs/{parts.id}/artifacts/adapter",
        }
        assert served.process is not None
        server = psutil.Process(served.process.pid)
        for path in ways.values():
            drain(served, path)  # into the page cache
        before = server.memory_info().rss
        speeds = {name: [drain(served, path) for _ in range(repeats)] for name, path in ways.items()}
        _show(megabytes, speeds, server.memory_info().rss - before)


def _show(megabytes: int, speeds: dict[str, list[float]], grown: int) -> None:
    medians = {name: statistics.median(each) for name, each in speeds.items()}
    share = medians["zip"] / medians["one plain file"]
    for name, speed in medians.items():
        print(f"{name:<16} {speed:8,.0f} MB/s")
    print(f"zip / plain file {share:.2f}; the server grew by {grown / 1e6:.1f} MB")
    print(json.dumps({"megabytes": megabytes, **medians, "share": share, "grown_bytes": grown}))


def read(served: Served, job: Job, start: int, etag: str | None) -> Iterator[bytes]:
    """The zip from an offset on. Raises: httpx.TransportError where it breaks off."""
    headers = {**served.headers, "Range": f"bytes={start}-", **({"If-Range": etag} if etag else {})}
    url = f"{served.url}/api/v1/jobs/{job.id}/artifacts/adapter"
    with httpx.stream("GET", url, headers=headers, timeout=60) as response:
        assert response.status_code == 206, response.status_code
        yield response.headers["etag"].encode()
        yield from response.iter_bytes(_PIECE)


def resume(gigabytes: float) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        home, digest, came = Path(scratch) / "home", hashlib.sha256(), 0
        with serve_process(home) as served:
            job = add_artifact(home, [int(gigabytes * 5e8)] * 2, holes=True)
            stream = read(served, job, 0, None)
            etag = next(stream).decode()
            try:
                for piece in stream:
                    digest.update(piece)
                    came += len(piece)
                    if served.process is not None and came > gigabytes * 5e8:
                        served.process.kill()
            except httpx.TransportError as broken:
                print(f"killed at {came:,} bytes: {broken}")
        os.unlink(home / "server.json")
        with serve_process(home) as served:
            for piece in list_after(read(served, job, came, etag)):
                digest.update(piece)
                came += len(piece)
            whole = hashlib.sha256()
            for piece in list_after(read(served, job, 0, etag)):
                whole.update(piece)
        equal = whole.digest() == digest.digest()
        print(f"{came:,} bytes in two parts: {digest.hexdigest()}\nat once: {whole.hexdigest()}; equal: {equal}")
        print(json.dumps({"bytes": came, "equal": equal}))
        assert equal


def list_after(stream: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces without the ETag ahead of them."""
    next(stream)
    return stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--resume", type=float, metavar="GB", help="a zip of so many GB, broken off in the middle")
    arguments = parser.parse_args()
    if arguments.resume:
        resume(arguments.resume)
    else:
        measure(arguments.megabytes, arguments.repeats)


if __name__ == "__main__":
    main()
