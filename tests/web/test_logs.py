"""A log is served whole and at the promised length, also while it grows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.web.logs import log_response


def body(path: Path, offset: int = 0, grow: bytes = b"") -> tuple[int, bytes]:
    """The promised length and what is sent; `grow` is written between the two."""
    response = log_response(path, offset)
    if grow:
        path.write_bytes(path.read_bytes() + grow)

    async def collect() -> bytes:
        return b"".join([bytes(chunk) async for chunk in response.body_iterator])

    return int(response.headers["content-length"]), asyncio.run(collect())


def test_what_is_written_meanwhile_waits_for_the_next_request(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(b"one\n")
    assert body(path, grow=b"two\n" * 40_000) == (4, b"one\n")
    assert body(path, offset=4) == (160_000, b"two\n" * 40_000)


@pytest.mark.parametrize("offset", [4, 5, 10**12])
def test_nothing_is_behind_the_end(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(b"one\n")
    assert body(path, offset) == (0, b"")
    assert body(tmp_path / "none.log", offset) == (0, b"")
