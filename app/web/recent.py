"""The newest events as they go onto the wire: encoded once, joined once, for however many streams."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter

from fastapi.sse import format_sse_event

from app.core.events.models import Event
from app.core.events.types import EventKind

CHUNK_BYTES = 64 * 1024  # what a stream is given at once, or one event: so much memory may a stalled reader hold
_HELD_BYTES = 4 * 1024**2
_HELD_CHUNKS = 64


@dataclass(frozen=True, slots=True)
class Frame:
    """One event on the wire. One that is `patient` may wait a little for others to go with."""

    id: int
    job_id: int | None
    text: bytes
    patient: bool = False

    @classmethod
    def of(cls, event: Event) -> Frame:
        text = format_sse_event(event=event.kind, id=str(event.key), data_str=json.dumps(event.to_json()))
        return cls(event.key, event.job_id, text, patient=event.kind == EventKind.GPU)


class Recent:
    """All events behind the id `floor`, up to the id `last`. Old ones leave where they take too much memory."""

    def __init__(self, floor: int) -> None:
        self.floor = self.last = floor
        self._frames: list[Frame] = []
        self._bytes = 0
        self._chunks: dict[tuple[int, int | None], tuple[bytes, int]] = {}

    def add(self, frames: Sequence[Frame]) -> None:
        """Append what is new; ids ascend."""
        self._chunks.clear()
        self._frames += frames
        self._bytes += sum(len(frame.text) for frame in frames)
        self.last = self._frames[-1].id
        if self._bytes > 2 * _HELD_BYTES:
            self._shed()

    def after(self, place: int, job_id: int | None) -> tuple[bytes, int]:
        """The next chunk behind an id that is not below `floor`, and the id that it reaches."""
        if place >= self.last:
            return b"", place
        key = (place, job_id)
        if key not in self._chunks:
            if len(self._chunks) >= _HELD_CHUNKS:
                self._chunks.clear()
            self._chunks[key] = self._join(place, job_id)
        return self._chunks[key]

    def _join(self, place: int, job_id: int | None) -> tuple[bytes, int]:
        texts: list[bytes] = []
        size = 0
        for frame in islice(self._frames, bisect_right(self._frames, place, key=attrgetter("id")), None):
            if job_id not in (None, frame.job_id):
                continue
            texts.append(frame.text)
            size += len(frame.text)
            if size >= CHUNK_BYTES:
                return b"".join(texts), frame.id
        return b"".join(texts), self.last

    def _shed(self) -> None:
        """Let the oldest go until half of what was held is left."""
        count = 0
        while self._bytes > _HELD_BYTES:
            self._bytes -= len(self._frames[count].text)
            count += 1
        self.floor = self._frames[count - 1].id
        del self._frames[:count]
