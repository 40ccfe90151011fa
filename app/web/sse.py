"""The live stream: one tailer per web process reads the event log for all subscribers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool

from app.core.database import Database
from app.core.events import log
from app.core.events.models import Event
from app.core.table import MAX_ID

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
HEARTBEAT_SECONDS = 15.0
_LONGEST_PAUSE_SECONDS = 5.0  # between tries, while reading new events fails
_BACKLOG_PAGE = 500
_QUEUE_LIMIT = 2000  # events that a slow reader may be behind; beyond, it reconnects and reads the log


@dataclass(eq=False, slots=True)
class Subscriber:
    """One open stream's place in the live flow."""

    job_id: int | None
    queue: asyncio.Queue[Event | None] = field(default_factory=lambda: asyncio.Queue(_QUEUE_LIMIT))

    def offer(self, event: Event) -> bool:
        """Hand over an event, if it is for this stream. Returns False where the reader is too far behind."""
        if self.job_id not in (None, event.job_id):
            return True
        if self.queue.full():
            return False
        self.queue.put_nowait(event)
        return True


class EventTailer:
    """Reads new events once for all streams, however many there are."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._subscribers: set[Subscriber] = set()
        self._last = 0
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Begin at the log's end."""
        self._last = await run_in_threadpool(self._latest)
        self._task = asyncio.create_task(self._run(), name="event tailer")

    def request_stop(self) -> None:
        """End every stream, so that the server can shut down. Call from the event loop's thread."""
        self._stopping.set()
        for subscriber in list(self._subscribers):
            self._evict(subscriber)

    async def stop(self) -> None:
        """End the tailer too."""
        self.request_stop()
        if self._task is not None:
            await self._task

    async def stream(
        self, job_id: int | None, after: int | None, *, follow: bool = True
    ) -> AsyncIterator[Event | None]:
        """Events behind `after` (None: only new ones), then live ones if `follow`; None stands for a heartbeat."""
        subscriber = Subscriber(job_id)
        self._subscribers.add(subscriber)
        boundary = self._last  # the tailer delivers what is behind it, the log what is up to it
        sent = boundary if after is None else after
        try:
            while sent < boundary:
                page = await run_in_threadpool(self._read, sent, job_id)
                for event in page:
                    yield event
                if len(page) < _BACKLOG_PAGE:
                    sent = max(boundary, page[-1].id or 0) if page else boundary
                else:
                    sent = page[-1].id or boundary
            if follow:
                async for event_or_beat in self._live(subscriber, sent):
                    yield event_or_beat
        finally:
            self._subscribers.discard(subscriber)

    async def _live(self, subscriber: Subscriber, sent: int) -> AsyncIterator[Event | None]:
        while not self._stopping.is_set():
            try:
                event = await asyncio.wait_for(subscriber.queue.get(), HEARTBEAT_SECONDS)
            except TimeoutError:
                yield None
                continue
            if event is None:
                return
            if (event.id or 0) > sent:
                yield event

    async def _run(self) -> None:
        """Until told to stop: what fails is tried again, else every stream would fall silent without a word."""
        pause = POLL_SECONDS
        while not self._stopping.is_set():
            try:
                more = await self._advance()
                pause = POLL_SECONDS
            except OperationalError as error:  # locked: the next round reads what this one could not
                logger.warning("the event log did not answer: %s", error)
                more = False
            except Exception:
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                logger.exception("new events could not be read; trying again in %.1f s", pause)
                more = False
            if not more:
                await self._sleep(pause)

    async def _advance(self) -> bool:
        """Deliver what is new. Returns whether there may be more."""
        events = await run_in_threadpool(self._read, self._last, None)
        for event in events:
            self._deliver(event)
        return len(events) >= _BACKLOG_PAGE

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _deliver(self, event: Event) -> None:
        self._last = event.id or self._last
        for subscriber in list(self._subscribers):
            if not subscriber.offer(event):
                logger.warning("a stream was too slow and is closed; it can resume from its last event")
                self._evict(subscriber)

    def _evict(self, subscriber: Subscriber) -> None:
        self._subscribers.discard(subscriber)
        while not subscriber.queue.empty():
            subscriber.queue.get_nowait()
        subscriber.queue.put_nowait(None)

    def _latest(self) -> int:
        with self._database.read() as session:
            return log.latest_id(session)

    def _read(self, after: int, job_id: int | None) -> Sequence[Event]:
        with self._database.read() as session:
            return log.read_after(session, after, job_id=job_id, limit=_BACKLOG_PAGE)


def stream_response(
    request: Request, job_id: int | None, after: int | None, *, follow: bool = True
) -> StreamingResponse:
    """The stream as SSE; without `follow` it ends where the log ends. Last-Event-ID outranks `after`."""
    last_event_id = request.headers.get("last-event-id", "")
    start = min(int(last_event_id), MAX_ID) if last_event_id.isascii() and last_event_id.isdigit() else after
    tailer: EventTailer = request.app.state.tailer
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    frames = _frames(tailer.stream(job_id, start, follow=follow))
    return StreamingResponse(frames, media_type="text/event-stream", headers=headers)


async def _frames(stream: AsyncIterator[Event | None]) -> AsyncIterator[bytes]:
    yield format_sse_event(event="heartbeat", data_str="{}", retry=2000)  # the browser knows that it is connected
    async with aclosing(stream) as events:  # type: ignore[type-var]
        async for event in events:
            if event is None:
                yield format_sse_event(event="heartbeat", data_str="{}")
            else:
                yield format_sse_event(event=event.kind, id=str(event.id), data_str=json.dumps(event.to_json()))
