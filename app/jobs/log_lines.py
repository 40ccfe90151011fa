"""Lines of a job's log out of its file: the last ones, or the last that were asked for, however long the file is."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
SHOWN_LINES = 1000
SEARCHED_BYTES = 64 * 1024**2
_TAIL_BYTES = 512 * 1024  # holds SHOWN_LINES of usual length
_LEVEL = re.compile(r"^\S+ \S+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")


@dataclass(frozen=True, slots=True)
class Asked:
    """Lines that hold `search` (in any case), of `level` or above, before byte `before` of the file."""

    search: str = ""
    level: str = ""
    before: int | None = None

    @property
    def filtered(self) -> bool:
        return bool(self.search or self.level)


@dataclass(frozen=True, slots=True)
class Lines:
    """What is shown. `older`: from which byte to ask on, None where nothing is before; `unread`: bytes not searched."""

    lines: Sequence[str]
    older: int | None
    unread: int


def read_lines(path: Path, asked: Asked) -> Lines:
    """The last lines that are asked for. A line without a level, as one of a traceback, has that of the line before."""
    size = path.stat().st_size if path.exists() else 0
    end = min(size, asked.before) if asked.before is not None else size
    begin = max(0, end - (SEARCHED_BYTES if asked.filtered else _TAIL_BYTES))
    kept: deque[tuple[int, str]] = deque(maxlen=SHOWN_LINES + 1)
    for offset, line in _wanted(_read(path, begin, end), asked):
        kept.append((offset, line))
    more = len(kept) > SHOWN_LINES
    shown = [*kept][1:] if more else [*kept]
    older = shown[0][0] if more and shown else begin or None
    return Lines([line for _, line in shown], older, begin if asked.filtered else 0)


def _read(path: Path, begin: int, end: int) -> Iterator[tuple[int, str]]:
    """(offset, line) from the first line that begins at `begin` or behind it, to `end`."""
    if begin >= end:
        return
    with path.open("rb") as file:
        if begin:
            file.seek(begin - 1)
            file.readline(SEARCHED_BYTES)  # the rest of a line that began before
        offset = file.tell()
        for line in file:
            if offset >= end:
                return
            yield offset, line[: end - offset].decode("utf-8", "replace").rstrip("\r\n")
            offset += len(line)


def _wanted(lines: Iterator[tuple[int, str]], asked: Asked) -> Iterator[tuple[int, str]]:
    least, search, level = LEVELS.index(asked.level) if asked.level else 0, asked.search.casefold(), 1
    for offset, line in lines:
        if asked.level and (found := _LEVEL.match(line)) is not None:
            level = LEVELS.index(found[1])
        if level >= least and (not search or search in line.casefold()):
            yield offset, line
