"""The planned zip: read by other programs, cut anywhere, beyond 4 GiB; files are read only where a range needs them."""

from __future__ import annotations

import io
import random
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.artifacts.zips import Entry, Zip

MADE_AT = 1_790_000_001.0
FILES = {"a/empty": b"", "a/one": b"x", "a/größe ☃.bin": bytes(range(256)) * 5000, "a/last": b"the end"}


def entry(name: str, content: bytes) -> Entry:
    return Entry(name, len(content), zlib.crc32(content), lambda start, stop: iter((content[start:stop],)))


@pytest.fixture
def small() -> Zip:
    return Zip([entry(name, content) for name, content in FILES.items()], MADE_AT)


def whole(planned: Zip) -> bytes:
    return b"".join(planned.read(0, planned.size_bytes))


def test_it_is_a_zip_of_the_length_that_was_told(small: Zip) -> None:
    content = whole(small)
    assert len(content) == small.size_bytes
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == FILES
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time for info in archive.infolist()} == {(2026, 9, 21, 14, 13, 20)}


def test_a_program_that_reads_forwards_finds_its_files(small: Zip, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(whole(small))
    script = "import sys, zipfile; zipfile.main(['-t', sys.argv[1]])"
    told = subprocess.run(["python3", "-c", script, tmp_path / "a.zip"], capture_output=True, text=True, check=True)
    assert "Done testing" in told.stdout


def test_any_range_is_what_stands_there(small: Zip) -> None:
    content, chance = whole(small), random.Random(1)
    cuts = [(0, 1), (0, len(content)), (len(content) - 1, len(content))]
    cuts += [tuple(sorted(chance.sample(range(len(content) + 1), 2))) for _ in range(300)]
    for start, stop in cuts:
        assert b"".join(small.read(start, stop)) == content[start:stop]


def test_a_range_reads_nothing_of_files_outside_it() -> None:
    read: list[tuple[str, int, int]] = []

    def reader(name: str) -> Entry:
        def read_bytes(start: int, stop: int) -> Iterator[bytes]:
            read.append((name, start, stop))
            yield bytes(stop - start)

        return Entry(name, 1000, zlib.crc32(bytes(1000)), read_bytes)

    planned = Zip([reader("first"), reader("second"), reader("third")], MADE_AT)
    head = 30 + len("first") + 1000 + 30 + len("second")
    assert b"".join(planned.read(head + 900, head + 1010))[:100] == bytes(100)
    assert read == [("second", 900, 1000)]


@pytest.mark.parametrize("sizes", [[2**32 - 1], [2**32 + 5, 7], [2**31, 2**31, 2**31, 7], [2**32 - 2, 1]])
def test_beyond_4_gib_the_directory_says_where_files_are_and_how_long(sizes: list[int]) -> None:
    content = b"at the end"
    large = [Entry(f"large-{n}", size, 0, lambda *_: iter(())) for n, size in enumerate(sizes)]
    planned = Zip([*large, entry("small", content)], MADE_AT)
    with zipfile.ZipFile(Sparse(planned)) as archive:
        assert [info.file_size for info in archive.infolist()] == [*sizes, len(content)]
        assert archive.read("small") == content


class Sparse(io.RawIOBase):
    """A zip as a file of which only the pieces are made that somebody reads."""

    def __init__(self, planned: Zip) -> None:
        self._planned, self._at = planned, 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._planned.size_bytes}[whence] + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._planned.size_bytes if size < 0 else min(self._at + size, self._planned.size_bytes)
        content = b"".join(self._planned.read(self._at, stop)) if stop > self._at else b""
        self._at += len(content)
        return content


def test_more_files_than_a_classic_directory_counts() -> None:
    planned = Zip([entry(f"{n}", b"") for n in range(65_536)], MADE_AT)
    with zipfile.ZipFile(io.BytesIO(whole(planned))) as archive:
        assert len(archive.namelist()) == 65_536


def test_a_time_before_zips_were_made_is_theirs() -> None:
    planned = Zip([entry("a", b"")], 0.0)
    with zipfile.ZipFile(io.BytesIO(whole(planned))) as archive:
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
