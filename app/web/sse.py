"""The live stream over HTTP."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.core.table import MAX_ID
from app.web.identities import identity_of
from app.web.tailer import EventTailer, Follower

BROWSER_HEADER = "loradeck-browser"  # a random name that all tabs of a browser share
STREAMS_PER_BROWSER = 4  # over HTTP/1.1 a browser opens six connections at most, and pages must load too


class EventStream(StreamingResponse):
    """Server-sent events; the tailer wakes it for as long as it is being sent."""

    media_type = "text/event-stream"

    def __init__(self, tailer: EventTailer, follower: Follower) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(tailer.chunks(follower), headers=headers)
        self._tailer, self._follower = tailer, follower

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.get("state", {})
        self._follower.abort = state.get("abort")
        self._follower.push = state.get("push") if scope["http_version"] == "1.1" else None  # 1.0 knows no chunks
        with self._tailer.following(self._follower):
            await super().__call__(scope, receive, send)


def stream_response(request: Request, job_id: int | None, after: int | None, *, follow: bool = True) -> EventStream:
    """The stream as SSE; without `follow` it ends where the log ends. Last-Event-ID outranks `after`.

    So does one stream too many of a browser: it comes back every second, and its connection is free meanwhile.
    """
    tailer: EventTailer = request.app.state.tailer
    start = _last_event_id(request)
    start = after if start is None else start
    browser = request.headers.get(BROWSER_HEADER)
    lasting = follow and (browser is None or tailer.count(browser) < STREAMS_PER_BROWSER)
    return EventStream(tailer, Follower(tailer.place(job_id, start), lasting, browser, identity_of(request).credential))


def _last_event_id(request: Request) -> int | None:
    """None where it is no number; one that is too large for an id is the largest."""
    text = request.headers.get("last-event-id", "")
    if not (text.isascii() and text.isdigit()):
        return None
    return MAX_ID if len(text) > len(str(MAX_ID)) else min(int(text), MAX_ID)
