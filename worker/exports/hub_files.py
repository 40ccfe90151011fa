"""Files on their way to the hub: verified while they are opened, counted while they are sent."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd
from huggingface_hub.hf_api import RepoFile

from app.core.artifacts.opened import FileGone, open_listed
from app.core.errors import JobCancelled
from worker.context import JobContext
from worker.exports.hub_errors import HubUploadError

_TELL_SECONDS = 0.5


class Sent:
    """How many bytes are read of how many, told to the job's page; and where a cancel takes effect."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._positions: dict[str, int] = {}
        self._total = 0
        self._began = self._told_at = time.monotonic()

    def enter(self, phase: str, total: int | None = None) -> None:
        """A phase in which so many bytes are read, or what is left of those before. Raises: JobCancelled."""
        self.check_stop()
        self._context.spool.phase(phase)
        if total is not None:
            self._total, self._positions, self._began = total, {}, time.monotonic()
            self._context.spool.progress(0, total)

    def check_stop(self) -> None:
        """Nothing is saved early, so every request to stop cancels. Raises: JobCancelled."""
        if self._context.stop_request is not None:
            raise JobCancelled()

    def move(self, path: str, position: int) -> None:
        """The file was read up to `position`. Raises: JobCancelled."""
        self.check_stop()
        with self._lock:
            self._positions[path] = position
            now = time.monotonic()
            if now - self._told_at < _TELL_SECONDS:
                return
            self._told_at = now
            self._tell(min(sum(self._positions.values()), self._total), now - self._began)

    def _tell(self, sent: int, seconds: float) -> None:
        left = (self._total - sent) * seconds / sent if sent else None
        self._context.spool.progress(sent, self._total, eta_seconds=left)


class _Counted(io.BufferedIOBase):
    """A file that tells of each piece that is read."""

    def __init__(self, file: io.BufferedReader, path: str, sent: Sent) -> None:
        self._file, self._path, self._sent = file, path, sent

    def read(self, size: int | None = -1, /) -> bytes:
        piece = self._file.read(size)
        self._sent.move(self._path, self._file.tell())
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


class Outgoing:
    """One file of the commit: its path there, size, hash, and the client's own operation."""

    def __init__(self, path: str, content: bytes | io.BufferedIOBase) -> None:
        self.path = path
        self.operation = CommitOperationAdd(path, content)  # type: ignore[arg-type]
        self.bytes: int = self.operation.upload_info.size
        self.sha256: str = self.operation.upload_info.sha256.hex()

    @classmethod
    @contextmanager
    def of(cls, root: Path, listed: Mapping[str, Any], sent: Sent) -> Iterator[Outgoing]:
        """A file of an artifact's folder, open. Raises: HubUploadError where it is not as it was saved."""
        path = listed["path"]
        try:
            with (
                open_listed(root, listed) as descriptor,
                os.fdopen(descriptor, "rb", closefd=False) as file,
            ):
                outgoing = cls(path, _Counted(file, path, sent))
                if outgoing.sha256 != listed["sha256"]:
                    raise _damaged(f"{path} is damaged: its SHA-256 is not the one it was saved with")
                yield outgoing
        except FileGone as error:
            raise _damaged(error.message.rstrip(".")) from error

    @classmethod
    @contextmanager
    def text(cls, path: str, text: str) -> Iterator[Outgoing]:
        """A small file that is made for the hub."""
        yield cls(path, text.encode())

    def git_id(self) -> str:
        """The id that git gives the content; of files that are not held as large ones."""
        with self.operation.as_file() as file:
            content = file.read()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def differences(files: Sequence[Outgoing], there: Mapping[str, RepoFile]) -> list[str]:
    """The paths of files that the hub does not list with the same content."""
    return [file.path for file in files if not _is_same(file, there.get(file.path))]


def _is_same(file: Outgoing, entry: RepoFile | None) -> bool:
    if entry is None or entry.size != file.bytes:
        return False
    return entry.lfs.sha256 == file.sha256 if entry.lfs else entry.blob_id == file.git_id()


def _damaged(what: str) -> HubUploadError:
    return HubUploadError(f"{what}. Nothing was sent.", advice="Merge or export again, then upload again.")
