"""A job's log over HTTP, also while the job writes to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastapi.responses import StreamingResponse

_CHUNK_BYTES = 64 * 1024


def log_response(path: Path, offset: int = 0, filename: str | None = None) -> StreamingResponse:
    """The log as text from byte `offset` to where it ends now; a log that is not there yet is empty.

    What is written while it is sent is left for the next request: the length is promised before the first byte, and a
    plain file response would send what has come since on top of it, which breaks the connection.
    """
    length = max(0, (path.stat().st_size if path.exists() else 0) - offset)
    headers = {"Content-Length": str(length)}
    if filename is not None:
        headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return StreamingResponse(_read(path, offset, length), media_type="text/plain; charset=utf-8", headers=headers)


def _read(path: Path, offset: int, length: int) -> Iterator[bytes]:
    if not length:
        return
    with path.open("rb") as file:
        file.seek(offset)
        while length and (chunk := file.read(min(_CHUNK_BYTES, length))):
            length -= len(chunk)
            yield chunk
