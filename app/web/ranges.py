"""Answers of known length that can be resumed: one range at a time, under a strong ETag.

Source: RFC 9110, sections 13 and 14.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from app.core.errors import AppError
from app.web.errors import respond

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(?P<first>\d{0,19})-(?P<last>\d{0,19})[ \t]*", re.ASCII | re.IGNORECASE)
_MAX_ASCII_NAME = 200


class BadRange(AppError):
    """This range cannot be sent: one range of bytes at a time, within the file."""

    code = "bad_range"


@dataclass(frozen=True, slots=True)
class Content:
    """What is sent: its name for the reader's disk, its length, its bytes from start to before stop."""

    name: str
    size_bytes: int
    etag: str  # without quotes; the same only for the very same bytes
    read: Callable[[int, int], Iterator[bytes]]
    media_type: str = "application/octet-stream"


def send(request: Request, content: Content) -> Response:
    """The whole, or the range that is asked for where the ETag still holds."""
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{content.etag}"',
        "Content-Disposition": content_disposition(content.name),
        "Cache-Control": "private, no-cache",
    }
    if _matches(request.headers.get("if-none-match"), content.etag):
        return Response(status_code=304, headers=headers)
    try:
        asked = _asked(request, content)
    except BadRange as error:
        response = respond(request, error, 416)
        response.headers["Content-Range"] = f"bytes */{content.size_bytes}"
        return response
    start, stop = asked or (0, content.size_bytes)
    if asked:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size_bytes}"
    headers["Content-Length"] = str(stop - start)
    status = 206 if asked else 200
    if request.method == "HEAD":
        return Response(None, status, headers, content.media_type)
    return StreamingResponse(content.read(start, stop), status, headers, content.media_type)


def content_disposition(name: str) -> str:
    """An attachment of that name, whatever characters it has. Source: RFC 6266, appendix D."""
    plain = re.sub(r"[^A-Za-z0-9 ._()+=@-]", "_", name)[:_MAX_ASCII_NAME]
    header = f'attachment; filename="{plain}"'
    return header if plain == name else f"{header}; filename*=UTF-8''{quote(name, safe='', errors='replace')}"


def _asked(request: Request, content: Content) -> tuple[int, int] | None:
    """Start and end of the range that is to be sent; None for the whole. Raises: BadRange."""
    header = request.headers.get("range")
    condition = request.headers.get("if-range")
    if header is None or request.method != "GET" or condition not in (None, f'"{content.etag}"'):
        return None  # another ETag, or a date: what the reader has is not of these bytes
    unit = header.partition("=")[0].strip().lower()
    if unit != "bytes":
        return None
    match = _RANGE.fullmatch(header)
    if match is None or len(request.headers.getlist("range")) > 1:
        raise BadRange()
    return _bounds(match["first"], match["last"], content.size_bytes)


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """`5-9`, `5-` to the end, or `-5`: the last five. Raises: BadRange."""
    if not first and not last:
        raise BadRange()
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last) + 1, size) if first and last else size
    if start >= stop:
        raise BadRange(f"Bytes {start:,} and further are not there: it has {size:,}.")
    return start, stop


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    return header.strip() == "*" or f'"{etag}"' in header.replace("W/", "").replace(" ", "").split(",")
