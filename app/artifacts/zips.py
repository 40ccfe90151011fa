"""A zip as a plan: every byte of it is known from sizes and checksums, so any range is made without the rest.

Entries are stored, not deflated. Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 (structure) and 4.5.3 (zip64).
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate

_CLASSIC = 20  # version needed to extract
_ZIP64 = 45
_UNIX = 3 << 8
_UTF8 = 0x800
_FULL = 0xFFFFFFFF
_FULL_COUNT = 0xFFFF
_MODE = 0o100644 << 16

Read = Callable[[int, int], Iterator[bytes]]  # the bytes from start to before stop


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the zip."""

    name: str
    size_bytes: int
    crc32: int
    read: Read

    @classmethod
    def of_text(cls, name: str, text: str) -> Entry:
        """A file that is made here."""
        return cls(name, len(text.encode()), zlib.crc32(text.encode()), _reading(text.encode()))


@dataclass(frozen=True, slots=True)
class _Part:
    size_bytes: int
    read: Read


class Zip:
    """Headers, files and the directory behind them, in order."""

    def __init__(self, entries: Sequence[Entry], made_at: float) -> None:
        """`made_at`, seconds since the epoch, is each file's time: the same entries give the same bytes."""
        self._stamp = _dos_time(made_at)
        self._parts: list[_Part] = []
        directory, offset = [], 0
        for entry in entries:
            header = self._local(entry)
            directory.append(self._central(entry, offset))
            self._parts += [_part(header), _Part(entry.size_bytes, entry.read)]
            offset += len(header) + entry.size_bytes
        self._parts.append(_part(b"".join(directory) + _end(len(entries), sum(map(len, directory)), offset)))
        self._ends = list(accumulate(part.size_bytes for part in self._parts))

    @property
    def size_bytes(self) -> int:
        """Of the whole zip."""
        return self._ends[-1]

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The zip's bytes from `start` to before `stop`; parts outside are not touched."""
        index = bisect_right(self._ends, start)
        while start < stop:
            end, part = self._ends[index], self._parts[index]
            begin, last = end - part.size_bytes, min(stop, end)
            yield from part.read(start - begin, last - begin)
            start, index = last, index + 1

    def _local(self, entry: Entry) -> bytes:
        large = entry.size_bytes >= _FULL
        extra = struct.pack("<HHQQ", 1, 16, entry.size_bytes, entry.size_bytes) if large else b""
        size = _FULL if large else entry.size_bytes
        version, name = _ZIP64 if large else _CLASSIC, entry.name.encode()
        fields = (version, _UTF8, 0, *self._stamp, entry.crc32, size, size, len(name), len(extra))
        return b"PK\x03\x04" + struct.pack("<5H3L2H", *fields) + name + extra

    def _central(self, entry: Entry, offset: int) -> bytes:
        """Its record in the directory; `offset` is where its local header begins."""
        size, place = entry.size_bytes >= _FULL, offset >= _FULL
        numbers = [*([entry.size_bytes] * 2 if size else []), *([offset] if place else [])]
        extra = struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
        version, name = _ZIP64 if numbers else _CLASSIC, entry.name.encode()
        shown = _FULL if size else entry.size_bytes
        fields = (_UNIX | version, version, _UTF8, 0, *self._stamp, entry.crc32, shown, shown, len(name), len(extra))
        more = (0, 0, 0, _MODE, _FULL if place else offset)
        return b"PK\x01\x02" + struct.pack("<6H3L2H", *fields) + struct.pack("<3H2L", *more) + name + extra


def _end(count: int, size: int, offset: int) -> bytes:
    """The end of the directory of so many entries and bytes, which begins at `offset`."""
    large = b""
    if count >= _FULL_COUNT or size >= _FULL or offset >= _FULL:
        record = struct.pack("<QHHLLQQQQ", 44, _UNIX | _ZIP64, _ZIP64, 0, 0, count, count, size, offset)
        large = b"PK\x06\x06" + record + b"PK\x06\x07" + struct.pack("<LQL", 0, offset + size, 1)
    shown = min(count, _FULL_COUNT)
    classic = struct.pack("<4H2LH", 0, 0, shown, shown, min(size, _FULL), min(offset, _FULL), 0)
    return large + b"PK\x05\x06" + classic


def _part(content: bytes) -> _Part:
    return _Part(len(content), _reading(content))


def _reading(content: bytes) -> Read:
    return lambda start, stop: iter((content[start:stop],))


def _dos_time(moment: float) -> tuple[int, int]:
    """Time and date as MS-DOS keeps them, in UTC: two-second steps from 1980 on."""
    at = max(datetime.fromtimestamp(moment, UTC), datetime(1980, 1, 1, tzinfo=UTC))
    return at.hour << 11 | at.minute << 5 | at.second // 2, (at.year - 1980) << 9 | at.month << 5 | at.day
