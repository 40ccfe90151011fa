"""A note beside the spool that needs no room on the disk: why a child waits, while it cannot write its spool."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FILE = "waits.json"
_FILE_BYTES = 1024  # written as one block when there is room, and over itself later


class WaitNote:
    """Holds what the child waits for, or nothing."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self.put(None)

    def put(self, waits_for: dict[str, Any] | None) -> None:
        """Replace the note. Raises: OSError where there was no room from the start."""
        os.pwrite(self._descriptor, json.dumps(waits_for).ljust(_FILE_BYTES).encode(), 0)

    def close(self) -> None:
        os.close(self._descriptor)


def read_wait(attempt_folder: Path) -> dict[str, Any] | None:
    """What the attempt's child waits for: {kind, message}; None where it does not."""
    path = attempt_folder / FILE
    if not path.is_file():
        return None
    try:
        noted: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8") or "null")
    except ValueError:  # read in the middle of the write
        return None
    return noted
