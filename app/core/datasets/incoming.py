"""A file on its way in: written once, on the disk where it stays, and hashed as it comes."""

from __future__ import annotations

import hashlib
import os
from io import RawIOBase
from pathlib import Path
from typing import Any

from app.core.datasets.staging import Staging

_NAME = "incoming"


class IncomingFile(RawIOBase):
    """A file in a folder of its own under `uploads`; closing it removes both, unless the folder was moved away."""

    def __init__(self, uploads: Path) -> None:
        self._staging = Staging(uploads)
        self.folder = self._staging.path
        self.path = self.folder / _NAME
        self.bytes = 0
        self._digest = hashlib.sha256()
        self._file = self.path.open("w+b", buffering=0)

    @property
    def sha256(self) -> str:
        """Of what was written, as hexadecimal digits."""
        return self._digest.hexdigest()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int | None:
        return self._file.readinto(buffer)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """All of the data. Raises: OSError, such as of a full disk."""
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
        self._digest.update(data)
        self.bytes += len(data)
        return len(data)

    def finish(self) -> None:
        """All is written: it is on the disk before anything speaks of it."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self._staging.close()
        super().close()
