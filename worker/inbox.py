"""The inbox: an append-only file beside the spool through which the worker asks more of a child that waits for it.

A line is one JSON object, complete only with its newline. Requests of a chat: {turn: {…}} is a question, {stop: id} the
end of its answer, {end: reason} says that no more will come.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

FILE = "inbox.jsonl"


class InboxWriter:
    """Appends requests. What an earlier worker has written is in `written`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.written = InboxReader(path).poll()

    def put(self, request: dict[str, Any]) -> None:
        """Append one request, wholly or not at all. Raises: OSError where there is no room."""
        line = json.dumps(request, separators=(",", ":")).encode() + b"\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            before = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, before)  # no newline of this line has been seen by anybody
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        finally:
            os.close(descriptor)


class InboxReader:
    """Reads what has come since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def poll(self) -> list[dict[str, Any]]:
        """New requests in their order; most looks cost one system call."""
        try:
            if os.stat(self._path).st_size <= self._offset:
                return []
        except FileNotFoundError:
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
