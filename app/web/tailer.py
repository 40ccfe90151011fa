"""One tailer per web process reads the event log for all streams; each stream is a place in it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from fastapi.sse import format_sse_event
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool

from app.core.database import Database
from app.core.errors import DatabaseDamaged
from app.core.events import log
from app.web.backlog import Backlog, Place
from app.web.recent import Frame, Recent

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
HEARTBEAT_SECONDS = 15.0
PATIENCE_SECONDS = 1.0  # readings alone go out no more often: a thousand writes cost a training on the same cores
STALLED_SECONDS = 20.0  # a reader that takes nothing for so long is cut off
_LOOK_SECONDS = 1.0  # between looks at who is silent and who is stalled
_LONGEST_PAUSE_SECONDS = 5.0  # between tries, while reading new events fails
_PAGE = 500

GREETING = format_sse_event(event="heartbeat", data_str="{}", retry=1000)  # a browser knows that it is connected
HEARTBEAT = format_sse_event(event="heartbeat", data_str="{}")


@dataclass(eq=False, slots=True)
class Follower:
    """One open stream. `abort` drops its connection at once; `push` writes to it past its waiting task."""

    place: Place
    lasting: bool = True  # else it ends where the log ends
    browser: str | None = None
    credential: str | None = None  # the login or token it was opened with, which may end before it does
    abort: Callable[[], None] | None = None
    push: Callable[[bytes], bool] | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: bool = False
    sending_since: float | None = None
    sent_at: float = field(default_factory=time.monotonic)

    def take(self, recent: Recent) -> bool:
        """Send what is new at once. Returns False where the stream's task has to: its reader is behind."""
        if self.push is None or not self.waiting or self.place.id < recent.floor:
            return False
        chunk, reached = recent.after(self.place.id, self.place.job_id)
        if chunk and not self.push(chunk):
            return False
        if chunk:
            self.sent_at = time.monotonic()
        self.place.id = reached
        return reached >= recent.last


class EventTailer:
    """Reads new events once for all streams, however many there are."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._backlog = Backlog(database)
        self._recent = Recent(0)
        self._spread, self._spread_at = 0, 0.0
        self._followers: set[Follower] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Begin a little before the log's end: after a restart all readers come back to about there."""
        self._recent = Recent(await run_in_threadpool(self._first_place))
        while await self._advance():
            continue
        self._tasks = [asyncio.create_task(self._run(), name="event tailer"), asyncio.create_task(self._watch())]

    def request_stop(self) -> None:
        """End every stream, so that the server can shut down. Call from the event loop's thread."""
        self._stopping.set()
        for follower in list(self._followers):
            if follower.sending_since is not None and follower.abort is not None:
                follower.abort()
            follower.wake.set()

    async def stop(self) -> None:
        """End the tailer too."""
        self.request_stop()
        await asyncio.gather(*self._tasks)

    def place(self, job_id: int | None, after: int | None) -> Place:
        """Where a stream begins: behind an id, or with what is new."""
        return Place(self._recent.last, job_id, known=True) if after is None else Place(after, job_id)

    def count(self, browser: str) -> int:
        """How many streams a browser has open."""
        return sum(follower.browser == browser for follower in self._followers)

    def credentials(self) -> set[str]:
        """The logins and tokens that streams are open with."""
        return {follower.credential for follower in self._followers if follower.credential is not None}

    def end_streams(self, credentials: Collection[str]) -> None:
        """End the streams that were opened with one of these. Call from the event loop's thread."""
        for follower in list(self._followers):
            if follower.credential in credentials:
                follower.lasting = False
                if follower.sending_since is not None and follower.abort is not None:
                    follower.abort()
                follower.wake.set()

    @contextmanager
    def following(self, follower: Follower) -> Iterator[None]:
        """Wake a stream when there is something for it."""
        self._followers.add(follower)
        try:
            yield
        finally:
            self._followers.discard(follower)

    async def chunks(self, follower: Follower) -> AsyncIterator[bytes]:
        """What a stream sends: a greeting, what lies behind its place, then what comes, or a heartbeat."""
        chunk = GREETING
        while not self._stopping.is_set():
            if chunk:
                follower.sending_since = time.monotonic()
                yield chunk
                follower.sending_since, follower.sent_at = None, time.monotonic()
            elif not follower.lasting:
                return
            else:
                follower.waiting = True
                await follower.wake.wait()
                follower.waiting = False
            follower.wake.clear()
            chunk = await self._next(follower)

    async def _next(self, follower: Follower) -> bytes:
        place = follower.place
        unknown = place.id > self._recent.last and not place.known
        if unknown or place.id < self._recent.floor or not follower.lasting:
            return await run_in_threadpool(self._backlog.read, place)
        chunk, place.id = self._recent.after(place.id, place.job_id)
        silent = follower.lasting and time.monotonic() - follower.sent_at >= HEARTBEAT_SECONDS
        return HEARTBEAT if silent and not chunk else chunk

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
            except DatabaseDamaged:  # for good; streams end, and what is asked next is told why
                self.request_stop()
                return
            except Exception:
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                logger.exception("new events could not be read; trying again in %.1f s", pause)
                more = False
            if not more:
                await self._sleep(pause)

    async def _advance(self) -> bool:
        """Take in what is new. Returns whether there may be more."""
        frames = await run_in_threadpool(self._read)
        if frames:
            self._recent.add(frames)
        waited = time.monotonic() - self._spread_at >= PATIENCE_SECONDS
        if self._recent.last > self._spread and (waited or not all(frame.patient for frame in frames)):
            self._hand_out()
        return len(frames) >= _PAGE

    def _hand_out(self) -> None:
        """Give all streams what is new."""
        self._spread, self._spread_at = self._recent.last, time.monotonic()
        for follower in self._followers:
            if not follower.take(self._recent):
                follower.wake.set()

    async def _watch(self) -> None:
        """Wake streams that were silent for long; cut off those whose reader takes nothing."""
        while not self._stopping.is_set():
            await self._sleep(min(_LOOK_SECONDS, HEARTBEAT_SECONDS))
            now = time.monotonic()
            for follower in list(self._followers):
                if follower.sending_since is None:
                    if now - follower.sent_at >= HEARTBEAT_SECONDS:
                        follower.wake.set()
                elif now - follower.sending_since >= STALLED_SECONDS and follower.abort is not None:
                    logger.warning("a stream's reader took nothing for %.0f s and is cut off", STALLED_SECONDS)
                    follower.abort()

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _first_place(self) -> int:
        with self._database.read() as session:
            return max(log.latest_id(session) - _PAGE, log.pruned_through(session))

    def _read(self) -> Sequence[Frame]:
        with self._database.read() as session:
            return [Frame.of(event) for event in log.read_after(session, self._recent.last, limit=_PAGE)]
